"""What SD3.5 needs on a GPU, computed from the project's own formulas; nothing here is measured."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.counted import MASKED, PRESETS, UNMASKED, memory_of, operations_of
from benchmarks.sd35 import SMALL_MODELS, TRUE, Scale
from lib_hybridstitch.plans.hybridstitch import HybridStitch

SIZES = (512, 1024, 1536)


def gigabytes(count: float) -> str:
    """GB with one decimal."""
    return f"{count / 2**30:.1f}"


def table() -> str:
    """The table of the README, in Markdown; sizes beside these are in the results of `bench truesize`."""
    lines = [
        "| GB | large bf16 / fp8 | small bf16 / fp8 | activations | KV cache bf16 / fp8 | "
        "Step cache, fp8 weights | HybridStitch, fp8 weights and cache | HybridStitch, bf16 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        need = memory_of(TRUE, size)
        pairs = [
            " / ".join(gigabytes(need[f"{name}_{kind}"]) for kind in ("bf16", "fp8"))
            for name in ("large", "small", "cache")
        ]
        totals = (need["plans"][name][kind] for name, kind in ((UNMASKED, "fp8"), (MASKED, "fp8"), (MASKED, "bf16")))
        cells = [f"{size}²", *pairs[:2], gigabytes(need["activations"]), pairs[2], *map(gigabytes, totals)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_size(scale: Scale, sizes: Sequence[int]) -> dict[str, Any]:
    """Operations and bytes of a pair: "operations" and "memory", each by the pictures' size."""
    return {
        "operations": {str(size): operations_of(scale, size) for size in sizes},
        "memory": {str(size): memory_of(scale, size) for size in sizes},
    }


def small_models_table(found: Mapping[str, Any]) -> str:
    """Small models beside each other in Markdown, those of a cell in the order of the head.

    Args:
        found: their names → what `by_size` says of SD3.5-Large with them.
    """
    presets = [name for name, (method, _) in PRESETS.items() if method is HybridStitch]
    head = [" / ".join(found), "full pass over a large one", *presets, "weights, bf16", f"{MASKED}, bf16", "fp8"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for size in next(iter(found.values()))["operations"]:
        counts = [own["operations"][size] for own in found.values()]
        needs = [own["memory"][size] for own in found.values()]
        cells = [
            [f"{count['small_of_large']:.2f}" for count in counts],
            *([f"{count['speedup'][name]:.2f}x" for count in counts] for name in presets),
            [gigabytes(need["small_bf16"]) for need in needs],
            *([gigabytes(need["plans"][MASKED][kind]) for need in needs] for kind in ("bf16", "fp8")),
        ]
        lines.append("| " + " | ".join([f"{size}²", *map(" / ".join, cells)]) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the tables."""
    argparse.ArgumentParser(prog="run.py bench memory", description=__doc__).parse_args(arguments)
    print(table())
    print("\n" + small_models_table({name: by_size(scale, SIZES) for name, scale in SMALL_MODELS.items()}))
    return 0
