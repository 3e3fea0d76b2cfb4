"""The race: HybridStitch and its peers on one pair, the same prompts and seeds, one machine, one run.

    python3 run.py bench            # half an hour and more on two cores; goes on where it was interrupted
    python3 run.py bench --quick    # some minutes, for a look

Distance is measured to the picture of the large model alone (Euler, same seed). Time is from noise and prompts to
pictures, `--batch` pictures at once: with one picture the matrices are so small that calls and not arithmetic take
the time, which true sizes do not know. All contenders take turns in an order shuffled anew each round; the reference
runs again after every few of them, and a ratio is to the two runs of the reference that frame it, so that what else the
machine does meets both alike. Drawing uses the same batch, because a
cache decides once for all pictures of a call. The scenes are combinations that the pair never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.contenders import CFG, STEPS, Contender, contenders
from benchmarks.drawers import Drawer, NotRunError, Stitched
from benchmarks.report import plot, report
from benchmarks.scores import Drawn, Outcome, as_rows, beside_ours, compare, row
from benchmarks.state import Round, State, code_hash, fingerprint, weights_hash
from benchmarks.trials import scenes
from hybridstitch_demo.generate import SHIFT, Pair, load_pair
from hybridstitch_demo.judge import load_judge
from hybridstitch_demo.measure import PSNR_OF_EQUALS, machine
from hybridstitch_demo.metrics import Lpips, psnr, ssim
from lib_hybridstitch import __version__

RESULTS = Path(__file__).parent / "results"
SEED = 5077
"""The generator's seed of the scenes; nothing has been tuned on them."""
SIZE = 128
BETWEEN = 10
"""Contenders timed between two runs of the reference."""

Entry = tuple[Contender, Drawer]
Judged = Callable[[Tensor, Sequence[str]], Tensor]
"""Pictures (B, 3, H, W) in 0..1 and their prompts → whether each shows everything, (B,) bool."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        scenes: pictures for the distances.
        rounds: timed batches per contender.
        batch: pictures drawn at once.
    """

    scenes: int
    rounds: int
    batch: int


def line_up(pair: Pair, field: Sequence[Contender]) -> tuple[list[Entry], list[dict[str, str]]]:
    """Make everybody's drawer; returns them, and who cannot take part with the reason."""
    entries: list[Entry] = []
    missing: list[dict[str, str]] = []
    for contender in field:
        try:
            entries.append((contender, contender.recipe.drawer(pair)))
        except NotRunError as error:
            missing.append({"method": contender.method, "setting": contender.setting, "why": str(error)})
    return entries, missing


def draw(entry: Entry, extent: Extent) -> tuple[Tensor, float]:
    """Draw all scenes in batches; returns pictures (scenes, 3, H, W) and the counted operations per picture."""
    contender, drawer = entry
    prompts, seeds = scenes(extent.scenes, SEED)
    pictures, operations, batch = [], 0, 1 if contender.alone else extent.batch
    for start in range(0, extent.scenes, batch):
        part = slice(start, start + batch)
        drawing = drawer.draw(contender.request(prompts[part], seeds[part]), count=True)
        assert drawing.operations is not None, "they were asked for"
        pictures.append(drawing.pictures)
        operations += drawing.operations
    return torch.cat(pictures), operations / extent.scenes


def score(pictures: Tensor, reference: Tensor, operations: float, extent: Extent, judged: Judged) -> Drawn:
    """Compare pictures (scenes, 3, H, W) with the reference's, scene by scene."""
    distance, prompts = Lpips(), scenes(extent.scenes, SEED)[0]
    pairs = list(zip(pictures.split(extent.batch), reference.split(extent.batch)))
    obeyed = [judged(part, prompts[start : start + len(part)]) for start, part in _numbered(pictures, extent.batch)]
    return Drawn(
        lpips=torch.cat([distance(a, b) for a, b in pairs]).tolist(),
        psnr=psnr(pictures, reference).clamp(max=PSNR_OF_EQUALS).tolist(),
        ssim=ssim(pictures, reference).tolist(),
        obeyed=torch.cat(obeyed).tolist(),
        operations=operations,
    )


def _numbered(pictures: Tensor, batch: int) -> list[tuple[int, Tensor]]:
    return [(batch * number, part) for number, part in enumerate(pictures.split(batch))]


def draw_all(entries: Sequence[Entry], extent: Extent, state: State, weights: str, judged: Judged) -> list[Drawn]:
    """Draw and score everybody who is not in the state yet; the first entry is the reference."""
    keys = [_drawing_key(entry, extent, weights) for entry in entries]
    reference: Tensor | None = None
    for entry, key in zip(tqdm(entries, desc="drawing", unit="contender", file=sys.stderr), keys):
        if state.drawing(key):
            continue
        pictures, operations = draw(entry, extent)
        if reference is None:
            reference = pictures if entry is entries[0] else draw(entries[0], extent)[0]
        state.record_drawing(key, score(pictures, reference, operations, extent, judged))
    return [drawn for key in keys if (drawn := state.drawing(key))]


def _drawing_key(entry: Entry, extent: Extent, weights: str) -> str:
    """Everything that decides a contender's pictures and their distances."""
    contender, drawer = entry
    code = code_hash() if isinstance(drawer, Stitched) else ""
    recipe = (contender.recipe, contender.steps, contender.sampler, code)
    return fingerprint(recipe, extent.scenes, extent.batch, CFG, SIZE, SEED, weights)


def timed_round(
    entries: Sequence[Entry], prompts: Sequence[str], seeds: Sequence[int], number: int, told: Callable[[], object]
) -> Round:
    """Time everybody once on the same scenes, the first entry, the reference, again and again between the others.

    Args:
        number: of the round; decides the order.
        told: called after every batch.
    """

    def ms(entry: Entry) -> float:
        took = entry[1].draw(entry[0].request(prompts, seeds)).ms
        told()
        return took

    others = random.Random(number).sample(list(entries[1:]), len(entries) - 1)
    times: Round = {}
    framing = [ms(entries[0])]
    for start in range(0, len(others), BETWEEN):
        group = {contender.name: ms((contender, drawer)) for contender, drawer in others[start : start + BETWEEN]}
        framing.append(ms(entries[0]))
        times |= {name: (took, sum(framing[-2:]) / 2 / took) for name, took in group.items()}
    return {entries[0][0].name: (statistics.median(framing), 1.0), **times}


def clock(entries: Sequence[Entry], extent: Extent, state: State, weights: str) -> list[Round]:
    """Everybody's times, a dictionary per round.

    Rounds of an interrupted race count; those of another field or another machine do not. The first round of every
    start warms up.
    """
    key = fingerprint([contender for contender, _ in entries], extent.batch, weights, machine())
    done = len(state.rounds(key))
    if done >= extent.rounds:
        return state.rounds(key)[: extent.rounds]
    prompts, seeds = scenes((extent.rounds + 1) * extent.batch, SEED)
    each = len(entries) + math.ceil((len(entries) - 1) / BETWEEN)
    with tqdm(total=(extent.rounds - done + 1) * each, desc="timing", unit="batch", file=sys.stderr) as bar:
        for number in range(done, extent.rounds + 1):
            part = slice(number * extent.batch, (number + 1) * extent.batch)
            times = timed_round(entries, prompts[part], seeds[part], number, bar.update)
            if number > done:
                state.record_round(key, times)
    return state.rounds(key)


def outcomes(entries: Sequence[Entry], drawn: Sequence[Drawn], rounds: Sequence[Round]) -> list[Outcome]:
    """Put drawings and times together; the first entry is the reference of the counted speed-up."""
    return [
        Outcome(
            contender.method,
            contender.setting,
            contender.ours,
            own,
            ms=[times[contender.name][0] for times in rounds],
            ratios=[times[contender.name][1] for times in rounds],
            speedup_flops=drawn[0].operations / own.operations,
        )
        for (contender, _), own in zip(entries, drawn)
    ]


def race(
    pair: Pair, field: Sequence[Contender], extent: Extent, state: State, weights: str, judged: Judged
) -> dict[str, Any]:
    """Run everybody; returns what race.json holds of it."""
    entries, missing = line_up(pair, field)
    for one in missing:
        print(f"Not run: {one['method']}, {one['setting']}: {one['why']}", file=sys.stderr)
    drawn = draw_all(entries, extent, state, weights, judged)
    found = outcomes(entries, drawn, clock(entries, extent, state, weights))
    compared = {"comparisons": as_rows(compare(found)), "beside_ours": beside_ours(found)}
    return {"rows": [row(one) for one in found], **compared, "not_run": missing}


def settings(extent: Extent, weights: str) -> dict[str, Any]:
    """What the race was run with."""
    return {
        "version": __version__,
        "machine": machine(),
        "weights": weights,
        "steps": STEPS,
        "cfg": CFG,
        "shift": SHIFT,
        "size": SIZE,
        "scenes": extent.scenes,
        "generator_seed": SEED,
        "rounds": extent.rounds,
        "batch": extent.batch,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the race and write race.json, race.md and race.svg."""
    parser = argparse.ArgumentParser(prog="run.py bench race", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="8 scenes and 3 rounds of a part of the field")
    parser.add_argument("--scenes", type=int, help="prompts × seeds to draw; 256 unless --quick")
    parser.add_argument("--rounds", type=int, help="timed batches per contender; 5 unless --quick")
    parser.add_argument("--batch", type=int, default=4, help="pictures drawn and timed at once (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the results; benchmarks/results[/quick] if left out")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier race left in race-state")
    parser.add_argument(
        "--part",
        default="",
        help="K/N: only draw, and only every N-th contender from the K-th on, beside other processes",
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    extent = Extent(options.scenes or (8 if quick else 256), options.rounds or (3 if quick else 5), options.batch)
    out = options.out or (RESULTS / "quick" if quick else RESULTS)
    field = [one for one in contenders() if one.quick or not quick]
    started, weights = time.time(), weights_hash()
    state = State(out / "race-state", options.fresh)
    if options.part:
        part, parts = map(int, options.part.split("/"))
        torch.set_num_threads(1)
        chosen = [field[0], *field[1:][part - 1 :: parts]]
        draw_all(line_up(load_pair(), chosen)[0], extent, state, weights, load_judge().obeyed)
        return 0
    found = race(load_pair(), field, extent, state, weights, load_judge().obeyed)
    head = {**settings(extent, weights), "minutes_of_last_start": round((time.time() - started) / 60, 1)}
    text = report(head, found)
    (out / "race.json").write_text(json.dumps({**head, **found}, indent=1) + "\n", encoding="utf-8")
    (out / "race.md").write_text(text, encoding="utf-8")
    print(text)
    print(plot(found["rows"], out / "race.svg"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
