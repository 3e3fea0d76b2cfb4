"""Search for plans: which step is of which kind, within a budget, so that pictures stay near the large model's.

    python3 run.py bench search --method HybridStitch --budget 14 --minutes 60

Simulated annealing with restarts from the best plans found (after BudCache, arXiv 2606.13496). The scenes are training
scenes, those on which a coarse plan goes wrong, since nearly all distance is a few pictures that come out with another
layout. Every plan tried is written down at once, and a search that is started again goes on from there. What it finds
is for reading: presets are rules over σ and shares, which a person takes from it, and which hold at other step counts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.trials import STEPS, Trials, cost, scenes, written
from hybridstitch_demo.generate import Pair, load_pair
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import Kind, Plan, Step
from lib_hybridstitch.plans.safety import secured
from lib_hybridstitch.plans.step_cache import StepCache

RESULTS = Path(__file__).parent / "results"
FEWER_STEPS = "fewer steps"
"""The large model alone over a part of the noise levels: what is not computed holds the last velocity."""
ALPHABETS = {HybridStitch.name: "L C M30 M30x S s X", StepCache.name: "L C X", FEWER_STEPS: "L C X hold"}
BEGINNINGS = {
    HybridStitch.name: "8L X L X L X M30 2X M30 2X M30 2X S X s X s L",
    StepCache.name: "8L X L X L X L 2X L 2X C 3X C 3X L",
    FEWER_STEPS: "8L X L X L X L 2X L 2X C 3X C 3X L hold",
}
LEAST_SMALL, LEAST_MASKED = STEPS // 4, 3
"""Of HybridStitch: steps in which the small model takes part, and masked ones."""
COARSE = "10L 18S"
"""The plan that tells sensitive scenes from others."""
WARMTH = 0.004
"""Difference in the mean LPIPS that the search accepts at its start, one time in e."""
COLD_AFTER = 120
"""Plans until it accepts none; then it starts again from one of the best."""

Steps = tuple[Step, ...]


def sensitive(pair: Pair, pool: int, count: int, folder: Path) -> tuple[list[str], list[int]]:
    """The training scenes that the coarse plan changes most, `count` of a pool; which they are is kept in `folder`."""
    prompts, seeds = scenes(pool)
    kept = folder / f"sensitive of {pool}.json"
    if not kept.is_file():
        trials = Trials(pair, prompts, seeds)
        order = trials.distance(trials.plan(written(COARSE).fitted(STEPS))).rms.argsort(descending=True).tolist()
        kept.write_text(json.dumps(order), encoding="utf-8")
    chosen = json.loads(kept.read_text(encoding="utf-8"))[:count]
    return [prompts[index] for index in chosen], [seeds[index] for index in chosen]


@dataclass(frozen=True)
class Rules:
    """What a method's plans may be.

    Args:
        method: a key of `ALPHABETS`.
        budget: most that a plan may cost, in large steps.
        least: least that a plan should cost, so that the search spends what it may.
    """

    method: str
    budget: float
    least: float

    @property
    def kinds(self) -> Steps:
        """The steps that plans are made of."""
        return written(ALPHABETS[self.method]).steps

    @property
    def hold(self) -> bool:
        """Whether velocities are held between computed steps."""
        return written(ALPHABETS[self.method]).hold

    def allow(self, plan: Plan, run: Run) -> bool:
        """Whether a plan keeps to the budget, to what every plan must, and to what makes the method."""
        if not self.least <= cost(plan) <= self.budget or secured(plan, run).steps != plan.steps:
            return False
        if self.method != HybridStitch.name:
            return True
        small = sum(plan.calls_small(index) for index in range(len(plan.steps)))
        masked = sum(step.kind is Kind.MASKED for step in plan.steps)
        return small >= LEAST_SMALL and masked >= LEAST_MASKED

    def changed(self, steps: Steps, source: random.Random) -> Steps:
        """A plan with one to three small changes: a step of another kind, two exchanged, or one moved."""
        made = list(steps)
        for _ in range(source.choice((1, 1, 2, 2, 3))):
            here, there = source.randrange(2, len(made)), source.randrange(2, len(made))
            what = source.random()
            if what < 0.45:
                made[here] = source.choice(self.kinds)
            elif what < 0.75:
                made[here], made[there] = made[there], made[here]
            else:
                made.insert(there, made.pop(here))
        return tuple(made)


class Search:
    """Annealing over plans, with everything tried on disk.

    Args:
        log: a file of one JSON object per plan tried.
        start: the plan that the first search begins with; "" for the method's own.
    """

    def __init__(self, rules: Rules, trials: Trials, log: Path, seed: int, start: str) -> None:
        self.rules, self.trials, self.log, self.source = rules, trials, log, random.Random(seed)
        self.start = start or BEGINNINGS[rules.method]
        self.tried: dict[str, float] = {}
        if log.is_file():
            lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
            self.tried = {line["plan"]: line["distance"] for line in lines}

    def go(self, minutes: float) -> Iterator[tuple[str, float]]:
        """Search; yields every plan that is nearer than all before."""
        until, best = time.monotonic() + 60 * minutes, math.inf
        while time.monotonic() < until:
            here = self._start()
            held = self._distance(here, math.inf)
            for number in range(COLD_AFTER):
                if held < best:
                    best = held
                    yield str(self._plan(here)), best
                if time.monotonic() > until:
                    break
                warmth = WARMTH * (1 - number / COLD_AFTER) ** 2
                bound = held - warmth * math.log(self.source.random() + 1e-9)
                there = self._neighbour(here)
                found = self._distance(there, bound)
                if found <= bound:
                    here, held = there, found

    def _plan(self, steps: Steps) -> Plan:
        return self.trials.plan(steps, hold=self.rules.hold)

    def _start(self) -> Steps:
        """One of the best plans so far; the first time the given one, changed until it keeps to the rules."""
        if self.tried:
            best = sorted(self.tried, key=self.tried.__getitem__)[:5]
            return written(self.source.choice(best)).fitted(STEPS)
        steps = written(self.start).fitted(STEPS)
        while not self.rules.allow(self._plan(steps), self.trials.run):
            there = self.rules.changed(steps, self.source)
            middle = (self.rules.least + self.rules.budget) / 2
            if abs(cost(self._plan(there)) - middle) <= abs(cost(self._plan(steps)) - middle):
                steps = there
        return steps

    def _neighbour(self, steps: Steps) -> Steps:
        while True:
            there = self.rules.changed(steps, self.source)
            if there != steps and self.rules.allow(self._plan(there), self.trials.run):
                return there

    def _distance(self, steps: Steps, bound: float) -> float:
        """The mean LPIPS of a plan; of the first batches alone where these put it above `bound`."""
        plan = self._plan(steps)
        name = str(plan)
        if name not in self.tried:
            found = self.trials.distance(plan, bound)
            self.tried[name] = float(found.lpips.mean())
            with self.log.open("a", encoding="utf-8") as file:
                line = {"plan": name, "cost": round(cost(plan), 3), "distance": round(self.tried[name], 5)}
                line |= {"rms": round(float(found.rms.mean()), 5), "scenes": len(found.lpips), "tipped": found.tipped}
                file.write(json.dumps(line) + "\n")
        return self.tried[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and print every plan that is the nearest so far."""
    parser = argparse.ArgumentParser(prog="run.py bench search", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--method", choices=ALPHABETS, default=HybridStitch.name)
    parser.add_argument("--budget", type=float, default=14.0, help=f"large steps' worth, of {STEPS} (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--pool", type=int, default=128, help="training scenes of which sensitive ones are chosen")
    parser.add_argument("--scenes", type=int, default=32, help="scenes that plans are tried on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the search itself")
    parser.add_argument("--start", default="", help="plan to begin with, in its text form")
    parser.add_argument("--out", type=Path, default=RESULTS / "search", help="folder of the logs (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pair = load_pair()
    trials = Trials(pair, *sensitive(pair, options.pool, options.scenes, options.out))
    rules = Rules(options.method, options.budget, 0.96 * options.budget)
    log = options.out / f"{options.method} {options.budget:g}.jsonl"
    for plan, distance in Search(rules, trials, log, options.seed, options.start).go(options.minutes):
        print(f"{distance:.4f}  {plan}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
