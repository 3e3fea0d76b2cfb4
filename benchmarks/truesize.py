"""SD3.5-Large and -Medium at their true sizes: counted on any machine, timed where there is a GPU.

    python3 run.py bench truesize                       # count; on a CUDA GPU also time, in at most ten minutes
    python3 run.py bench truesize --device cpu --toy    # everything but the GPU, on a tiny pair

Weights are random: time and memory do not depend on them. One picture with guidance, hence two rows per pass.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.counted import MASKED, RATIOS, UNMASKED, verification, verified_activations
from benchmarks.markdown import document, table
from benchmarks.memory import by_size, small_models_table
from benchmarks.sd35 import SMALL_MODELS, TOY, TRUE, Scale
from benchmarks.timed import Bench, sizes_in_time
from hybridstitch_demo.measure import machine
from lib_hybridstitch import __version__

RESULTS = Path(__file__).parent / "results"
NOTHING_TIMED = "Nothing was timed: there is no CUDA GPU here. Every figure is counted or computed from formulas."
OTHER = "SD3-medium"
WHICH_SMALL = (
    "SD3-medium, the model before SD3.5, has SD3.5's latents and text and can stand in SD3.5-Medium's place. Pairs of "
    "figures are in the order of the first head; memory in GB. How near the pictures stay with either is not known: "
    "that takes their weights. SD3-medium was trained at up to 1024², SD3.5-Medium at up to 1440²."
)
FIRST = 1024
"""The size that is timed before the others."""


def counted(scale: Scale, sizes: Sequence[int]) -> dict[str, Any]:
    """Operations and bytes of every size, and how the formula compares with PyTorch's own counter."""
    middle = FIRST if FIRST in sizes else sizes[0]
    return {
        **by_size(scale, sizes),
        "formula_over_pytorch": {
            "size": middle,
            "passes": verification(scale, middle),
            "activations": verified_activations(scale, middle),
        },
    }


def timed(scale: Scale, options: argparse.Namespace) -> dict[str, Any]:
    """Times and peaks of the sizes that time allows."""
    device = torch.device(options.device)
    bench = Bench.of(scale, device, options.rounds, options.compile or "")
    order = sorted(options.sizes, key=lambda size: (size != FIRST, size))
    found, left_out = sizes_in_time(bench, order, options.minutes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "cuda": torch.version.cuda, "dtype": str(scale.dtype), "sizes": found, "left_out": left_out}


def operations_table(found: dict[str, Any]) -> str:
    """Passes: a row per size."""
    head = [
        "size",
        "tokens",
        "full large pass, TFLOP",
        *(f"large on {ratio:.0%}" for ratio in RATIOS),
        "full small pass",
    ]
    rows = [
        [f"{size}²", str(row["tokens"]), f"{row['large'] / 1e12:.1f}"]
        + [f"{row['partial_of_large'][f'{ratio:g}']:.2f}" for ratio in RATIOS]
        + [f"{row['small_of_large']:.2f}"]
        for size, row in found["operations"].items()
    ]
    return table(head, rows)


def speedups_table(found: dict[str, Any]) -> str:
    """Plans: a row per plan, a column per size."""
    sizes = list(found["operations"])
    rows = [
        [name, f"`{plan}`", *(f"{found['operations'][size]['speedup'][name]:.2f}x" for size in sizes)]
        for name, plan in found["operations"][sizes[0]]["plan"].items()
    ]
    return table(["method", "plan", *(f"{size}²" for size in sizes)], rows)


def memory_table(found: dict[str, Any]) -> str:
    """Bytes: a row per size; a plan's need holds weights, cache and activations."""
    head = ["GB", "large bf16 / fp8", "small bf16 / fp8", "activations", "KV cache bf16 / fp8"]
    head += [f"{name}, bf16 / fp8" for name in (UNMASKED, MASKED)]
    rows = []
    for size, row in found["memory"].items():

        def both(name: str, of: dict[str, Any] = row) -> str:
            return " / ".join(f"{of[f'{name}_{kind}'] / 2**30:.1f}" for kind in ("bf16", "fp8"))

        cells = [f"{size}²", both("large"), both("small"), f"{row['activations'] / 2**30:.1f}", both("cache")]
        for name in (UNMASKED, MASKED):
            cells.append(" / ".join(f"{row['plans'][name][kind] / 2**30:.1f}" for kind in ("bf16", "fp8")))
        rows.append(cells)
    return table(head, rows)


def timed_tables(found: dict[str, Any]) -> str:
    """Passes and whole runs by the clock, and what was left out."""
    passes, runs = [], []
    for size, row in found["sizes"].items():
        for name, cells in {**row["passes"]["rows"], **_graphs_and_streams(row)}.items():
            low, high = cells["ratio_quartiles"]
            counted_ratio = f"{cells['counted']:.2f}" if "counted" in cells else ""
            ratio = f"{cells['ratio']:.2f} ({low:.2f}–{high:.2f})"
            passes.append([f"{size}²", name, f"{cells['ms']:.1f}", ratio, counted_ratio])
        for part in row["bookkeeping"]:
            label = f"the engine's own work in a step: {part['step']}"
            passes.append([f"{size}²", label, f"{part['ms']:.2f}", f"{part['of_large_step']:.4f}", ""])
        for name, cells in row.get("runs", {}).items():
            low, high = cells["speedup_quartiles"]
            peak = cells["peak"]
            memory = "" if peak["bytes"] is None else f"{peak['bytes'] / 2**30:.1f} ({peak['ratio']:.2f})"
            speedup = f"{cells['speedup']:.2f}x ({low:.2f}–{high:.2f})"
            runs.append(
                [f"{size}²", name, f"{cells['ms'] / 1000:.2f}", speedup, f"{cells['speedup_counted']:.2f}x", memory]
            )
    text = table(["size", "work", "ms", "over a full large pass (quartiles)", "counted"], passes) + "\n\n"
    text += table(["size", "run", "s", "speed-up (quartiles)", "counted", "peak GB (over the formula)"], runs)
    return text + "".join(f"\n\nLeft out: {name}: {reason}." for name, reason in found["left_out"].items())


def _graphs_and_streams(row: dict[str, Any]) -> dict[str, Any]:
    """What a GPU was timed with beside plain passes, which are in the table already."""
    if "at_once" not in row:
        return {}
    partial = f"large, {row['at_once']['ratio']:.0%}"
    rows = row["at_once"]["rows"].items()
    return {name.replace("partial", partial): cells for name, cells in rows if name not in ("large", "partial")}


def page(found: dict[str, Any], scale: Scale) -> str:
    """All of it as Markdown."""
    on, verified = found["machine"], found["counted"]["formula_over_pytorch"]
    parts = [
        f"# True sizes\n\n{found['scale']}, one picture with guidance (two rows), {scale.context} text tokens, "
        f"{scale.steps} steps; made on {on['processor']}, {on['system']}, Python {on['python']}, torch {on['torch']}.",
        found["note"],
        "## Counted operations\n\nThe last columns are over a full large pass.\n\n"
        + operations_table(found["counted"]),
        "## Counted speed-up over the large model alone\n\n" + speedups_table(found["counted"]),
        "## Computed memory\n\n" + memory_table(found["counted"]),
        f"## Formula over PyTorch's own count, {verified['size']}²\n\n"
        + "; ".join(f"{name}: {value:g}" for name, value in verified["passes"].items())
        + ". Activations of a full pass, over the most bytes alive at once in the real modules: "
        + "; ".join(f"{name}: {value:g}" for name, value in verified["activations"].items())
        + ".",
    ]
    if found["other_small"] is not None:
        small = small_models_table(dict(zip(SMALL_MODELS, (found["counted"], found["other_small"]))))
        parts.append(f"## Which small model\n\n{WHICH_SMALL}\n\n{small}")
    if found["timed"] is not None:
        parts.append(
            f"## Timed on {found['timed']['device']}, {found['timed']['dtype']}\n\n{timed_tables(found['timed'])}"
        )
    return document(parts)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py bench truesize", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="edges of square pictures in pixels")
    parser.add_argument("--minutes", type=float, default=9.0, help="when to stop timing (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds of single passes (default %(default)s)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default=None, help="what is timed; the GPU, if there is one"
    )
    parser.add_argument("--compile", nargs="?", const="inductor", help="time torch.compile on the full pass as well")
    parser.add_argument("--toy", action="store_true", help="a tiny pair instead of SD3.5, to try the command itself")
    parser.add_argument("--out", type=Path, default=None, help="folder for truesize.json and truesize.md")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else None)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU here; leave --device out to count only")
    if options.device == "cpu" and not options.toy:
        parser.error("at true sizes only a GPU is timed; add --toy for a dry run on the CPU")
    scale = TOY if options.toy else TRUE
    options.sizes = options.sizes or list(scale.sizes)
    for size in options.sizes:
        positions = min(scale.large.pos_embed_size, scale.small.pos_embed_size)
        if size % 16 or not 0 < scale.tokens(size) <= positions**2:
            parser.error(f"--sizes {size}: must be a multiple of 16 from 16 to {16 * positions}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, time where possible, print, and write truesize.json and truesize.md; a toy is written only on request."""
    options = _options(arguments)
    scale = TOY if options.toy else TRUE
    found: dict[str, Any] = {
        "version": __version__,
        "machine": machine(),
        "scale": scale.name,
        "rows": 2,
        "context": scale.context,
        "steps": scale.steps,
        "counted": counted(scale, options.sizes),
        "other_small": None if options.toy else by_size(SMALL_MODELS[OTHER], options.sizes),
        "timed": timed(scale, options) if options.device else None,
    }
    found["note"] = NOTHING_TIMED if found["timed"] is None else f"Timed on {found['timed']['device']}."
    if options.toy:
        found["note"] += " A dry run on a toy pair: no figure here says anything about SD3.5."
    text = page(found, scale)
    print(text)
    folder = options.out or (None if options.toy else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "truesize.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (folder / "truesize.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
