"""How well speed-ups are predicted: what is said beforehand, against the clock.

    python3 run.py bench prediction

For every method and several target speed-ups the plan is chosen as the extension chooses it, once by counted
operations, as before a first picture, and once by the step times that an earlier pass of other settings left, as from
the second picture on. Then the large model alone and the chosen plan take turns, and the clock decides.
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
from hybridstitch_demo.generate import PROFILE, Pair, Request, generate, load_pair, run_of, setup_of
from hybridstitch_demo.measure import machine
from lib_hybridstitch import __version__
from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.plans.ras import RAS
from lib_hybridstitch.plans.srdiffusion import SRDiffusion
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.plans.t_stitch import TStitch
from lib_hybridstitch.prediction.resolver import Resolved, resolve
from lib_hybridstitch.prediction.timings import Times, Timings
from lib_hybridstitch.settings import StitchSettings

RESULTS = Path(__file__).parent / "results"
PROMPT = "frog and red apple on blue"
BAR = 0.10
"""How far prediction and clock may lie apart, as a share of the clock's speed-up."""


@dataclass(frozen=True)
class Question:
    """A method, and what is asked of it.

    Args:
        method: its name.
        targets: speed-ups.
        taught: its settings in the earlier run, from which step times are known.
    """

    method: str
    targets: tuple[float, ...]
    taught: dict[str, Scalar]

    def settings(self, **values: Scalar) -> StitchSettings:
        """Settings of this method, a small model at hand."""
        return StitchSettings.from_dict({"method": self.method, "small_checkpoint": "small", **values})


QUESTIONS = (
    Question(HybridStitch.name, (1.3, 1.6, 2.0, 2.5), {"computed_share": 0.8, "mask_ratio": 0.4}),
    Question(StepCache.name, (1.3, 1.6, 2.0, 2.5), {"computed_share": 0.8}),
    Question(TStitch.name, (1.2, 1.5, 1.8), {"switch_step": 0.4}),
    Question(SRDiffusion.name, (1.2, 1.5, 1.8), {"switch_step": 0.4}),
    Question(RAS.name, (1.2, 1.4), {"mask_ratio": 0.6}),
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
        self.run = run_of(self.request, Profile.read(PROFILE))
        self.setup = setup_of(pair, self.request)

    def resolved(self, settings: StitchSettings, times: Times | None = None) -> Resolved:
        """What settings come to by what is known."""
        return resolve(settings, self.run, self.setup, times)

    def learned(self, settings: StitchSettings) -> Times | None:
        """The step times that one run of the settings leaves, as the extension remembers them."""
        timings = Timings()
        report = generate(self.pair, self.request, self.resolved(settings).plan).report
        timings.learn(self.setup, report.evaluations())
        return timings.of(self.setup)

    def clock(self, plan: Plan, rounds: int) -> list[float]:
        """Speed-ups from noise to picture of a plan over the large model alone, which frame it, by rounds."""
        found = []
        before = generate(self.pair, self.request).ms
        for _ in range(rounds):
            took = generate(self.pair, self.request, plan).ms
            after = generate(self.pair, self.request).ms
            found.append((before + after) / 2 / took)
            before = after
        return found

    def rows(self, question: Question, rounds: int) -> list[dict[str, Any]]:
        """Predict and time every target of a method."""
        known = self.learned(question.settings(**question.taught))
        rows = []
        for target in question.targets:
            for basis, times in (("counted", None), ("measured", known)):
                told = self.resolved(question.settings(target_speedup=target), times)
                clock, quartiles = spread(self.clock(told.plan, rounds))
                rows.append(
                    {
                        "method": question.method,
                        "target": target,
                        "by": basis,
                        "size": self.request.size,
                        "pictures": len(self.request.seeds),
                        "plan": str(told.plan),
                        "predicted": round(told.speedup, 3),
                        "clock": round(clock, 3),
                        "clock_quartiles": [round(value, 3) for value in quartiles],
                        "off": round(told.speedup / clock - 1, 3),
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        return rows


def summary(rows: Sequence[dict[str, Any]], by: str) -> dict[str, Any]:
    """How many predictions came within `BAR`, and how far off they were."""
    off = [abs(row["off"]) for row in rows if row["by"] == by]
    return {
        "predictions": len(off),
        "within_bar": sum(value <= BAR for value in off),
        "median_off": round(statistics.median(off), 3),
        "largest_off": max(off),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict and measure, and write prediction.json."""
    parser = argparse.ArgumentParser(prog="run.py bench prediction", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds per prediction (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one picture of 128 pixels, the first method")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for prediction.json")
    options = parser.parse_args(arguments)
    pair = load_pair()
    rows: list[dict[str, Any]] = []
    for size, pictures in ((128, 1),) if options.quick else ((128, 1), (128, 4), (256, 1)):
        bench = Bench(pair, size, pictures)
        generate(pair, bench.request)  # a first run is slow
        for question in QUESTIONS:
            rows += bench.rows(question, options.rounds)
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
