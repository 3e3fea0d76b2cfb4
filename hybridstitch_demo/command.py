"""The demo's command line: one prompt, drawn by the large model, by the small one, and stitched.

python3 run.py demo "frog and red apple on blue"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from hybridstitch_demo.generate import SAMPLERS, Request, load_pair
from hybridstitch_demo.measure import Comparison, compare, foretell, mask_frequency, report_json, settled
from hybridstitch_demo.metrics import Lpips
from hybridstitch_demo.sheet import Panel, SheetRow, StepEntry, comparison, to_image
from hybridstitch_demo.words import DRAWINGS, GROUNDS
from lib_hybridstitch.engine.report import Report
from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.fields import FieldSpec
from lib_hybridstitch.settings import StitchSettings, specs

EXAMPLE = "frog and red apple on blue"
AMPLIFIED = 10
MORE_SETTINGS = ("preset", "kv_cache", "target_speedup")
"""Settings offered beside those that presets govern; the rest belongs to a WebUI."""


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
    parser.add_argument("--seed", type=int, default=4, help="seed of the first picture (default %(default)s)")
    parser.add_argument("--count", type=int, default=1, help="pictures, drawn in one batch (default %(default)s)")
    parser.add_argument("--steps", type=int, default=28, help="sampler steps (default %(default)s)")
    parser.add_argument("--cfg", type=float, default=3.0, help="guidance scale; 1 turns it off (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="edge in pixels; the pair was trained at %(default)s")
    parser.add_argument("--sampler", choices=SAMPLERS, default="euler", help="default %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each method (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("hybridstitch-demo"), help="folder to write to (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report to standard output")
    group = parser.add_argument_group("settings of the method (what a preset governs may be set one by one)")
    for name, spec in specs().items():
        if spec.governed or name in MORE_SETTINGS:
            _add_setting(group, name, spec)
    return parser


def _add_setting(group: argparse._ArgumentGroup, name: str, spec: FieldSpec) -> None:
    flag = "--" + name.replace("_", "-")
    text = spec.help.replace("%", "%%")
    if spec.kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        group.add_argument(flag, type=spec.kind, choices=spec.choices or None, default=None, help=text)


def _settings(options: argparse.Namespace) -> StitchSettings:
    given = {name: getattr(options, name, None) for name in specs()}
    return StitchSettings.from_dict(
        {"enabled": True, **{key: value for key, value in given.items() if value is not None}}
    )


def _demo(options: argparse.Namespace) -> None:
    if not 1 <= options.count <= 16:
        raise HybridStitchError(f"count is {options.count}, allowed are 1 to 16.")
    if options.repeats < 1:
        raise HybridStitchError(f"repeats is {options.repeats}, allowed are 1 and more.")
    asked = _settings(options)
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
    settings = settled(pair, request, asked)
    told = foretell(pair, request, settings)
    print(
        f"{settings.method} {settings.preset}: {told.summary}", *filter(None, [told.advice]), sep="\n", file=sys.stderr
    )
    done = _with_progress(lambda tell: compare(pair, request, settings, told, options.repeats, tell), options.repeats)
    report = report_json(pair, done, distance)
    _write(options.out, done, report)
    print(json.dumps(report, indent=2) if options.json else _words(report, options.out))


def _with_progress(work: Callable[[Callable[[str, int, int], None]], Comparison], repeats: int) -> Comparison:
    with tqdm(desc="drawing three ways", unit="step", file=sys.stderr, leave=False) as bar:

        def tell(method: str, step: int, of: int) -> None:
            bar.total = 3 * (repeats + 1) * of
            bar.set_postfix_str(f"{method} {step}/{of}", refresh=False)
            bar.update()

        return work(tell)


def _write(folder: Path, done: Comparison, report: dict[str, object]) -> None:
    pictures = {"large": done.large.pictures, "small": done.small.pictures, "hybridstitch": done.stitched.pictures}
    for name, drawn in pictures.items():
        to_image(_side_by_side(drawn), drawn.shape[-1] * drawn.shape[0]).save(folder / f"{name}.png")
    headline = f"{report['speedup_wall']:.2f}x as fast, at LPIPS {report['lpips_to_large']:.3f} from the large picture"
    sheet = comparison(
        [_row(done, report, image) for image in range(min(4, len(done.request.seeds)))],
        _entries(done.large.report),
        _entries(done.stitched.report),
        headline=headline,
        note=_note(done, report),
    )
    sheet.save(folder / "comparison.png")
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _side_by_side(pictures: Tensor) -> Tensor:
    return pictures.permute(1, 2, 0, 3).flatten(2)


def _row(done: Comparison, report: dict[str, object], image: int) -> SheetRow:
    mask = mask_frequency(done.stitched, image)
    large, stitched = done.large.pictures[image], done.stitched.pictures[image]
    speed = f"{report['ms_hybridstitch']} ms · {report['speedup_wall']:.2f}x"
    panels = [
        Panel("Large model", f"{report['ms_large_only']} ms", large),
        Panel(f"{done.settings.method} {done.settings.preset}", speed, stitched),
        Panel("Small model", f"{report['ms_small_only']} ms", done.small.pictures[image]),
    ]
    if mask is None:
        difference = (AMPLIFIED * (stitched - large).abs()).clamp(0, 1)
        panels.append(
            Panel(f"Difference, {AMPLIFIED} times", "no mask: the large model refined no single tokens", difference)
        )
    return SheetRow(
        f"{done.request.prompts[image]}  ·  seed {done.request.seeds[image]}", tuple(panels), mask, masked=1
    )


def _entries(report: Report) -> list[StepEntry]:
    return [
        StepEntry(record.stage.value, record.sigma, round(record.tokens_large), record.tokens, record.ms)
        for record in report.evaluations()
    ]


def _note(done: Comparison, report: dict[str, object]) -> str:
    machine = report["machine"]
    assert isinstance(machine, dict)
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return (
        f"{done.request.steps} steps {done.request.sampler}, guidance {done.request.cfg:g}, "
        f"{done.request.size} x {done.request.size} pixels, batch of {len(done.request.seeds)}. Times and speed-up: "
        f"medians of {report['repeats']} interleaved runs from noise to picture on {machine['processor']}, "
        f"{threads}, fp32; the bars show the steps of the last run."
    )


def _words(report: dict[str, object], folder: Path) -> str:
    lines = [
        f"large model only  {report['ms_large_only']:>8} ms",
        f"small model only  {report['ms_small_only']:>8} ms   LPIPS to the large: {report['lpips_small_to_large']}",
        f"HybridStitch      {report['ms_hybridstitch']:>8} ms   LPIPS to the large: {report['lpips_to_large']}",
        f"speed-up {report['speedup_wall']:.2f}x by the clock, {report['speedup_flops']:.2f}x by counted operations",
    ]
    if report["unknown_words"]:
        lines.append(f"words the pair does not know: {', '.join(report['unknown_words'])}")  # type: ignore[arg-type]
    if report["dropped_words"]:
        lines.append(f"more drawings than fit into one picture, left out: {', '.join(report['dropped_words'])}")  # type: ignore[arg-type]
    if report["failure"]:
        lines.append(f"stitching ended early, the large model finished: {report['failure']}")
    return "\n".join([*lines, f"pictures, comparison.png and report.json are in {folder}"])


if __name__ == "__main__":
    sys.exit(main())
