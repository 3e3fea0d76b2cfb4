"""Where the settings of the peers in the race come from: each method's own grid, on scenes that are not the race's.

    python3 run.py bench tuning LOG [--only METHOD …]

Every line of the log is one setting measured: counted speed-up and mean LPIPS to the large model's own pictures (28
steps of Euler). What is in the log is not measured again. The table shows each method's front: the settings than which
no other of the method is both faster and nearer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.caches import CALIBRATORS, DualBlock
from benchmarks.contenders import Alone, Contender, Hooked, Settled, Written
from benchmarks.placed import Placed, growing
from benchmarks.spectrum import Spectrum
from benchmarks.trials import TIPPED, scenes
from hybridstitch_demo.generate import Pair, load_pair
from hybridstitch_demo.metrics import Lpips
from lib_hybridstitch.plans.plan import LARGE
from lib_hybridstitch.settings import StitchSettings

SCENES = 32
BATCH = 4


def grid() -> Iterator[Contender]:
    """Every setting that is tried, method by method."""
    yield from _spectrum()
    yield from _stitching()
    yield from _placed()
    yield from _hooks()
    yield from _cache_dit()


def _spectrum() -> Iterator[Contender]:
    """The authors' first window and growth, and settings of which the last step is a computed one."""
    usual = *product((0.25, 0.5, 0.75), (5, 7, 9), (2,)), (1.5, 5, 2), (1.5, 7, 2), (3.0, 5, 2)
    ending = (
        (0.2, 8, 1),
        (0.05, 8, 2),
        (0.7, 9, 1),
        (0.6, 9, 2),
        (0.8, 7, 1),
        (1.5, 9, 1),
        (2.7, 9, 1),
        (0.85, 6, 2),
        (1.75, 7, 1),
        (3.5, 9, 3),
        (2.35, 7, 2),
        (2.5, 6, 2),
    )
    for growth, warm_up, window in (*ending, *usual):
        yield Contender("Spectrum", "", Spectrum(growth, warm_up, float(window)))
    for growth, warm_up, window in ((0.75, 7, 2), (2.35, 7, 2)):
        yield Contender("Spectrum", "", Spectrum(growth, warm_up, float(window), chebyshev=1.0))


def _hooks() -> Iterator[Contender]:
    for interval, warm_up in ((2, 9), (3, 9), (4, 7), (5, 7), (6, 9), (10, 7)):
        yield Contender("TaylorSeer lite", "", Hooked("taylorseer", (interval, warm_up, True, True)))
    yield Contender("TaylorSeer lite", "", Hooked("taylorseer", (3, 9, True)))
    for interval, warm_up in ((3, 7), (6, 9)):
        yield Contender("TaylorSeer", "", Hooked("taylorseer", (interval, warm_up, False, True)))
    for value, longest, warm_up in ((0.06, 1, 7), (0.06, 3, 9), (0.12, 4, 9), (0.5, 9, 7)):
        yield Contender("MagCache", "", Hooked("magnitude", (value, longest, warm_up)))
    for value, warm_up in ((0.2, 7), (0.1, 9), (0.2, 9), (0.4, 9)):
        yield Contender("First-Block-Cache", "", Hooked("first_block", (value, warm_up)), alone=True)


def _cache_dit() -> Iterator[Contender]:
    for calibrator, threshold in product(CALIBRATORS, (0.2, 0.4)):
        yield Contender("cache-dit DBCache", "", DualBlock(threshold, calibrator), alone=True)
    masks = (8, 1, 3, 2, 3, 2, 2, 2, 1, 3, 1), (9, 1, 1, 2, 1, 3, 1, 3, 1, 5, 1)
    for calibrator, mask in product(CALIBRATORS, masks):
        yield Contender("cache-dit steps mask", "", DualBlock(0.0, calibrator, mask=mask))


def _stitching() -> Iterator[Contender]:
    for first, last in ((8, 1), (8, 4), (10, 1), (10, 4), (6, 2), (12, 2)):
        yield Contender("FlowBlending", "", Written(f"{first}L {28 - first - last}S {last}L"))
    for share in (0.6, 0.5, 0.43, 0.36, 0.29, 0.22):
        yield _settled("SRDiffusion", switch_step=share)
    for ratio, share in ((0.5, 0.32), (0.25, 0.32), (0.125, 0.32)):
        yield _settled("RAS", mask_ratio=ratio, switch_step=share)
    yield _settled("T-Stitch", switch_step=0.36)


def _placed() -> Iterator[Contender]:
    for (count, guided), last in product(((18, 16), (13, 10), (11, 9)), (True, False)):
        yield Contender("placed steps", "", Placed(growing(count, 8, last), guided))
    yield Contender("placed steps", "", Placed(growing(9, 7, False), 8))
    for count, guided in ((13, 10), (11, 9)):
        yield Contender("placed steps", "", Placed(growing(count, 8, True), guided, cached=False))


def _settled(name: str, **values: float) -> Contender:
    settings = StitchSettings.from_dict({"method": name, "small_checkpoint": "small", **values})
    text = ", ".join(f"{key} {value:g}" for key, value in values.items())
    return Contender(name, text, Settled(settings))


def measure(pair: Pair, one: Contender, reference: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
    """Draw the scenes; returns pictures (scenes, 3, H, W), and counted operations and distances to the reference."""
    prompts, seeds = scenes(SCENES)
    drawer, batch = one.recipe.drawer(pair), 1 if one.alone else BATCH
    pictures, operations = [], 0
    for start in range(0, SCENES, batch):
        part = slice(start, start + batch)
        drawing = drawer.draw(one.request(prompts[part], seeds[part]), count=True)
        assert drawing.operations is not None, "they were asked for"
        pictures.append(drawing.pictures)
        operations += drawing.operations
    drawn = torch.cat(pictures)
    far = [0.0] if reference is None else Lpips()(drawn, reference).tolist()
    return drawn, {
        "operations": operations,
        "lpips": statistics.mean(far),
        "median": statistics.median(far),
        "tipped": sum(value > TIPPED for value in far),
    }


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows than which no other is both faster and nearer, slowest first."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (-row["speedup"], row["lpips"])):
        if not kept or row["lpips"] < kept[-1]["lpips"]:
            kept.append(row)
    return kept[::-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the log lacks, and print every method's front."""
    parser = argparse.ArgumentParser(prog="run.py bench tuning", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("log", type=Path, help="lines of JSON, one per setting")
    parser.add_argument("--only", nargs="*", help="methods; all of them if left out")
    options = parser.parse_args(arguments)
    options.log.touch()
    rows = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]
    done = {(row["method"], row["recipe"]) for row in rows}
    pair = load_pair()
    field = [one for one in grid() if not options.only or one.method in options.only]
    missing = [one for one in field if (one.method, repr(one.recipe)) not in done]
    if missing:
        pictures, reference = measure(pair, Contender("large only", "", Alone(LARGE)), None)
    for one in missing:
        found = measure(pair, one, pictures)[1]
        speedup = reference["operations"] / found["operations"]
        row = {"method": one.method, "recipe": repr(one.recipe), "speedup": round(speedup, 3), **found}
        rows.append(row)
        with options.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        print(f"{row['speedup']:.2f}x {row['lpips']:.4f} {row['method']} {row['recipe']}", file=sys.stderr)
    for method in dict.fromkeys(row["method"] for row in rows):
        print(f"\n{method}")
        for row in front([row for row in rows if row["method"] == method]):
            print(f"  {row['speedup']:.2f}x  {row['lpips']:.4f}  {row['tipped']:2d} tipped  {row['recipe']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
