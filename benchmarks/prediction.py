"""How well a run is foretold: what the cost model says beforehand, against the clock.

    python3 run.py bench prediction

For every kind of split and several wished speed-ups the settings are chosen as the extension chooses them, once by
counted operations, as before a first picture, and once by the step times that an earlier pass of other settings left,
as from the second picture on. Then the large model alone and the chosen plan take turns, and the clock decides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CFG, STEPS
from benchmarks.stopwatch import spread
from hybridstitch_demo.autoencoder import FACTOR
from hybridstitch_demo.generate import LARGE_ONLY, Pair, Request, generate, load_pair, schedule
from hybridstitch_demo.measure import machine
from hybridstitch_demo.words import LENGTH
from lib_hybridstitch import __version__
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.plan import Plan, make_plan
from lib_hybridstitch.prediction.cost import Costs, forecast
from lib_hybridstitch.prediction.target import aim
from lib_hybridstitch.prediction.timings import Paces, RunKind
from lib_hybridstitch.settings import StitchSettings

RESULTS = Path(__file__).parent / "results"
PROMPT = "frog and red apple on blue"
BAR = 0.10
"""How far forecast and clock may lie apart, as a share of the clock's speed-up."""


@dataclass(frozen=True)
class Kind:
    """A kind of split.

    Args:
        name: for people.
        settings: what distinguishes it.
        wishes: wished speed-ups.
        taught: changes of the settings for the earlier run, from which step times are known.
    """

    name: str
    settings: dict[str, Scalar]
    wishes: tuple[float, ...]
    taught: dict[str, Scalar]


KINDS = (
    Kind("reuse", {"preset": "Balanced"}, (1.3, 1.6, 2.0, 2.5, 3.0), {"full_share": 0.8}),
    Kind("small background", {"preset": "Paper"}, (1.15, 1.3, 1.45), {"mask_ratio": 0.4}),
    Kind("T-Stitch", {"method": "T-Stitch"}, (1.2, 1.5, 1.8), {"switch_step": 0.4}),
    Kind("SRDiffusion", {"method": "SRDiffusion"}, (1.2, 1.5, 1.8), {"switch_step": 0.4}),
    Kind("RAS", {"method": "RAS"}, (1.2, 1.4), {"mask_ratio": 0.6}),
)


class Bench:
    """One size of run on one pair.

    Args:
        pair: the models.
        size: edge of a picture in pixels.
        pictures: per batch.
    """

    def __init__(self, pair: Pair, size: int, pictures: int) -> None:
        self.pair = pair
        self.request = Request((PROMPT,) * pictures, tuple(range(pictures)), steps=STEPS, cfg=CFG, size=size)
        self.sigmas = schedule(self.request)
        tokens = (size // (FACTOR * pair.large.config.patch_size)) ** 2
        self.kind = RunKind(pair.large.config, pair.small.config, tokens, 2 * pictures, "full", "cpu", 2)

    def costs(self, paces: Paces, plan: Plan) -> Costs:
        """What the plan's steps cost by what is known."""
        return paces.costs(self.kind, self.kind.counted(plan, LENGTH))

    def learned(self, settings: StitchSettings) -> Paces:
        """The step times that one run of the settings leaves, as the extension remembers them."""
        paces = Paces()
        report = generate(self.pair, self.request, make_plan(settings, self.sigmas), keep_masks=False).report
        paces.learn(self.kind, report.evaluations())
        return paces

    def clock(self, plan: Plan, rounds: int) -> list[float]:
        """Speed-ups from noise to picture of a plan over the large model alone, which frame it, by rounds."""
        found = []
        before = generate(self.pair, self.request, LARGE_ONLY).ms
        for _ in range(rounds):
            took = generate(self.pair, self.request, plan, keep_masks=False).ms
            after = generate(self.pair, self.request, LARGE_ONLY).ms
            found.append((before + after) / 2 / took)
            before = after
        return found

    def rows(self, kind: Kind, rounds: int) -> list[dict[str, Any]]:
        """Foretell and time every wish of a kind."""
        settings = StitchSettings(enabled=True).with_changes(kind.settings)
        known = self.learned(settings.with_changes({"preset": "Custom", **kind.taught}))
        rows = []
        for wish in kind.wishes:
            for times, paces in (("counted", Paces()), ("measured", known)):
                wished = settings.with_changes({"target_speedup": wish})
                chosen = aim(wished, self.sigmas, self.sigmas, lambda plan, paces=paces: self.costs(paces, plan))  # type: ignore[misc]
                plan = make_plan(chosen.settings, self.sigmas)
                told = forecast(plan, self.sigmas, self.costs(paces, plan)).speedup
                clock, quartiles = spread(self.clock(plan, rounds))
                rows.append(
                    {
                        "kind": kind.name,
                        "wish": wish,
                        "by": times,
                        "size": self.request.size,
                        "pictures": len(self.request.seeds),
                        "foretold": round(told, 3),
                        "clock": round(clock, 3),
                        "clock_quartiles": [round(value, 3) for value in quartiles],
                        "off": round(told / clock - 1, 3),
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        return rows


def summary(rows: Sequence[dict[str, Any]], by: str) -> dict[str, Any]:
    """How many forecasts came within `BAR`, and how far off they were."""
    off = [abs(row["off"]) for row in rows if row["by"] == by]
    return {
        "forecasts": len(off),
        "within_bar": sum(value <= BAR for value in off),
        "median_off": round(statistics.median(off), 3),
        "largest_off": max(off),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Foretell and measure, and write prediction.json."""
    parser = argparse.ArgumentParser(prog="run.py bench prediction", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds per forecast (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one picture of 128 pixels, the first wish of each kind")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for prediction.json")
    options = parser.parse_args(arguments)
    pair = load_pair()
    rows: list[dict[str, Any]] = []
    for size, pictures in ((128, 1),) if options.quick else ((128, 1), (128, 4), (256, 1)):
        bench = Bench(pair, size, pictures)
        generate(pair, bench.request, LARGE_ONLY)  # a first run is slow
        for kind in KINDS:
            rows += bench.rows(kind, options.rounds)
            if options.quick:
                break
        found = _write(rows, options.rounds, options.out)  # after every size, so that an interrupted run is not lost
    print(json.dumps({name: found[name] for name in ("counted", "measured")}, indent=1))
    return 0


def _write(rows: Sequence[dict[str, Any]], rounds: int, folder: Path) -> dict[str, Any]:
    found = {
        "version": __version__,
        "machine": machine(),
        "steps": STEPS,
        "cfg": CFG,
        "rounds": rounds,
        "bar": BAR,
        "counted": summary(rows, "counted"),
        "measured": summary(rows, "measured"),
        "rows": list(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prediction.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
