"""The demo's command line: one prompt, drawn by the large model, HybridStitch, Step cache and the small model.

python3 run.py demo "panda and tulip on sunset"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from hybridstitch_demo.comparison import Cell, Chart, Column, Row, comparison, duration, to_image
from hybridstitch_demo.generate import PROFILE, SAMPLERS, Pair, Request, load_pair
from hybridstitch_demo.measure import WAYS, Comparison, Outcome, Way, compare, mask_frequency, report_json, ways
from hybridstitch_demo.metrics import Lpips
from hybridstitch_demo.words import DRAWINGS, GROUNDS
from lib_hybridstitch.engine.report import mean_mask
from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.fields import FieldSpec
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.prediction.resolver import in_words
from lib_hybridstitch.settings import StitchSettings, specs

EXAMPLE = "panda and tulip on sunset"
SMALL = "small"
"""The pair's small model, by the name of its file."""
NOT_HERE = ("enabled", "small_checkpoint", "large_checkpoint", "hires", "small_device")
"""Settings that mean something in a WebUI only."""
FILES = {"large": "large", "hybridstitch": "hybridstitch", "step_cache": "stepcache", "small": "small"}
SHOWN = 4
"""Rows of the comparison."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _demo(options)
    except HybridStitchError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py demo",
        description=f"Draws: {', '.join(DRAWINGS)}. Grounds: {', '.join(GROUNDS)}. Other words change nothing.",
    )
    parser.add_argument("prompt", nargs="?", default=EXAMPLE, help="free text, for instance %(default)r")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first picture (default %(default)s)")
    parser.add_argument("--count", type=int, default=1, help="pictures, drawn in one batch (default %(default)s)")
    parser.add_argument("--steps", type=int, default=28, help="sampler steps (default %(default)s)")
    parser.add_argument("--cfg", type=float, default=3.0, help="guidance scale; 1 turns it off (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="edge in pixels; the pair was trained at %(default)s")
    parser.add_argument("--sampler", choices=SAMPLERS, default="euler", help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each way (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("hybridstitch-demo"), help="folder to write to (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report to standard output")
    group = parser.add_argument_group(
        "settings of HybridStitch", "Step cache beside it takes over the preset and the target speed-up."
    )
    for name, spec in specs().items():
        if name not in NOT_HERE:
            _add_setting(group, name, spec)
    return parser


def _add_setting(group: argparse._ArgumentGroup, name: str, spec: FieldSpec) -> None:
    flag, text = "--" + name.replace("_", "-"), spec.help.replace("%", "%%")
    group.add_argument(flag, type=spec.kind, choices=spec.choices or None, default=None, help=text)


def _settings(options: argparse.Namespace) -> StitchSettings:
    given = {name: getattr(options, name, None) for name in specs()}
    asked = {key: value for key, value in given.items() if value is not None}
    return StitchSettings.from_dict({"enabled": True, "small_checkpoint": SMALL, **asked})


def _demo(options: argparse.Namespace) -> None:
    if not 1 <= options.count <= 16:
        raise HybridStitchError(f"count is {options.count}, allowed are 1 to 16.")
    if options.repeats < 1:
        raise HybridStitchError(f"repeats is {options.repeats}, allowed are 1 and more.")
    settings = _settings(options)
    request = Request(
        prompts=(options.prompt,) * options.count,
        seeds=tuple(range(options.seed, options.seed + options.count)),
        steps=options.steps,
        cfg=options.cfg,
        size=options.size,
        sampler=options.sampler,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    pair, distance = load_pair(), Lpips()
    chosen = ways(pair, request, settings, Profile.read(PROFILE))
    for way in chosen.values():
        _say_beforehand(way)
    done = _with_progress(pair, request, chosen, distance, options.repeats)
    report = report_json(pair, done)
    _write(options.out, done, report)
    print(json.dumps(report, indent=2) if options.json else _words(done, report, options.out))


def _say_beforehand(way: Way) -> None:
    if way.resolved is not None:
        print(f"{way.name}: {way.resolved.summary}", file=sys.stderr)
        for sentence in (*way.resolved.plan.notes, way.resolved.advice):
            if sentence:
                print(f"  {sentence}", file=sys.stderr)


def _with_progress(
    pair: Pair, request: Request, chosen: Mapping[str, Way], distance: Lpips, repeats: int
) -> Comparison:
    with tqdm(desc="drawing four ways", unit="step", file=sys.stderr, leave=False) as bar:

        def tell(way: str, step: int, of: int) -> None:
            bar.total = len(chosen) * (repeats + 1) * of
            bar.set_postfix_str(f"{chosen[way].name} {step}/{of}", refresh=False)
            bar.update()

        return compare(pair, request, chosen, distance, repeats, tell)


def _write(folder: Path, done: Comparison, report: Mapping[str, Any]) -> None:
    for name, drawn in done.drawn.items():
        pictures = drawn.result.pictures
        to_image(_side_by_side(pictures), pictures.shape[-1] * len(pictures)).save(folder / f"{FILES[name]}.png")
    _picture(done, report).save(folder / "comparison.png")
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _side_by_side(pictures: Tensor) -> Tensor:
    return pictures.permute(1, 2, 0, 3).flatten(2)


# --- comparison.png --------------------------------------------------------------------------------------------------


def _picture(done: Comparison, report: Mapping[str, Any]) -> Any:
    own = done.drawn["hybridstitch"]
    columns = [Column(one.way.name, _speed(done, name)) for name, one in done.drawn.items()]
    if own.result.report.masks:
        share = f"{100 * mean_mask(own.records):.0f} % of the tokens in a masked step"
        columns.insert(1 + WAYS.index("hybridstitch"), Column("What the large model refined", share))
    charts = [_chart(done, name) for name in WAYS if name != "small"]
    rows = [_row(done, image) for image in range(min(SHOWN, len(done.request.seeds)))]
    return comparison(columns, rows, charts, _headline(done), _note(done, report))


def _row(done: Comparison, image: int) -> Row:
    cells = []
    for name, one in done.drawn.items():
        picture = one.result.pictures[image]
        cells.append(Cell(picture, "" if name == "large" else _far(float(done.lpips[name][image]))))
        mask = mask_frequency(one.result, image) if name == "hybridstitch" else None
        if mask is not None:
            cells.append(Cell(picture, "clear: in every masked step; dark: in none", mask))
    return Row(f"{done.request.prompts[image]}  ·  seed {done.request.seeds[image]}", tuple(cells))


def _chart(done: Comparison, name: str) -> Chart:
    one = done.drawn[name]
    accent = "" if name == "large" else f"{done.speedup(name):.2f}x"
    bars = tuple((record.kind, record.ms) for record in one.records)
    return Chart(one.way.name, in_words(one.records).split(", "), one.median, accent, bars)


def _speed(done: Comparison, name: str) -> str:
    ms = duration(done.drawn[name].median)
    return ms if name == "large" else f"{ms}  ·  {done.speedup(name):.2f}x"


def _headline(done: Comparison) -> str:
    own = done.drawn["hybridstitch"]
    far = _far(float(done.lpips["hybridstitch"].mean()))
    return f"{own.way.name}: {done.speedup('hybridstitch'):.2f}x as fast, {far} from the large model's picture"


def _far(lpips: float) -> str:
    return "LPIPS below 0.001" if 0 < lpips < 0.001 else f"LPIPS {lpips:.3f}"


def _note(done: Comparison, report: Mapping[str, Any]) -> str:
    request, on, repeats = done.request, report["machine"], report["repeats"]
    timed = "of one run" if repeats == 1 else f"medians of {repeats} interleaved runs"
    sentences = [
        f"{request.steps} steps {request.sampler}, guidance {request.cfg:g}, {request.size} x {request.size} pixels, "
        f"batch of {len(request.seeds)}.",
        f"Times and speed-ups: {timed} from noise to picture on {on['processor']}, "
        f"{on['threads']} thread{'' if on['threads'] == 1 else 's'}, fp32.",
        "LPIPS is the distance to the large model's picture.",
        *(f"{one.way.name} ended early: {one.result.report.failure}." for one in _failed(done)),
    ]
    return " ".join(sentences)


def _failed(done: Comparison) -> list[Outcome]:
    return [one for one in done.drawn.values() if one.result.report.failure]


# --- standard output -------------------------------------------------------------------------------------------------


def _words(done: Comparison, report: Mapping[str, Any], folder: Path) -> str:
    width = max(len(one.way.name) for one in done.drawn.values())
    lines = []
    for name, one in done.drawn.items():
        line = f"{one.way.name:<{width}}  {one.median:>8.1f} ms"
        if name != "large":
            far = float(done.lpips[name].mean())
            line += f"  {done.speedup(name):>5.2f}x  LPIPS {far:.4f}  {in_words(one.records)}"
        lines.append(line)
    counted = report["speedup_flops"], report["step_cache"]["speedup_flops"]
    names = done.drawn["hybridstitch"].way.name, done.drawn["step_cache"].way.name
    said = ", ".join(f"{name} {speedup:.2f}x" for name, speedup in zip(names, counted, strict=True))
    lines.append(f"speed-up by counted operations: {said}")
    if report["unknown_words"]:
        lines.append(f"words the pair does not know: {', '.join(report['unknown_words'])}")
    if report["dropped_words"]:
        lines.append(f"more drawings than fit into one picture, left out: {', '.join(report['dropped_words'])}")
    for one in _failed(done):
        lines.append(f"{one.way.name} ended early, the large model finished: {one.result.report.failure}")
    return "\n".join([*lines, f"pictures, comparison.png and report.json are in {folder}"])


if __name__ == "__main__":
    sys.exit(main())
