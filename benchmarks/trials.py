"""Plans tried on training scenes: the finished latent's distance to the large model's own, by Euler steps.

Plans that begin alike share what they begin with: the engine is copied where they part, and goes on from there.
"""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.sd35 import TRUE
from hybridstitch_demo.generate import Pair, Request, guided, run_of
from hybridstitch_demo.metrics import Lpips
from hybridstitch_demo.scenes import caption, combination
from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import LARGE, Plan, Step, WrittenPlan, parse
from lib_hybridstitch.prediction.operations import FULL

STEPS, CFG = 28, 4.0
"""Of every race."""
SEED = 4404
"""The generator's seed of the training scenes; no race draws these."""
BATCH = 16
REMEMBERED = 24
"""Beginnings that are kept, per batch of scenes."""
TIPPED = 0.1
"""LPIPS above which a picture has another layout."""
BUDGET_SIZE = 1024
"""Edge of the picture in pixels, for the cost of a plan by SD3.5's operations."""


def scenes(count: int, seed: int = SEED, wanted: bool = True) -> tuple[list[str], list[int]]:
    """Different prompts from a generator's seed and the seeds of their pictures.

    Args:
        wanted: whether they are combinations that the pair was not trained on.
    """
    source = random.Random(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        prompts[caption(*combination(source, wanted=wanted))] = None
    return list(prompts), list(range(10_000 * seed, 10_000 * seed + count))


def written(text: str) -> WrittenPlan:
    """The plan of one pass, from its text form."""
    found, _ = parse(text)
    assert found is not None, "an empty plan"
    return found


def cost(plan: Plan) -> float:
    """What a plan costs in large steps, counted for SD3.5-Large and -Medium at `BUDGET_SIZE`."""
    setup = TRUE.setup(BUDGET_SIZE)
    return sum(setup.flops(setup.work(plan, index)) for index in range(len(plan.steps))) / setup.flops(FULL)


@dataclass(frozen=True)
class Distance:
    """How far pictures are from the large model's own, each (scenes,).

    Args:
        lpips: of the pictures.
        rms: root mean square of the latents' difference.
    """

    lpips: Tensor
    rms: Tensor

    @property
    def tipped(self) -> int:
        """Pictures that came out with another layout."""
        return int((self.lpips > TIPPED).sum())

    def __str__(self) -> str:
        mean, median = float(self.lpips.mean()), float(self.lpips.median())
        return f"LPIPS {mean:.4f} (median {median:.4f}), tipped {self.tipped} of {len(self.lpips)}"


@dataclass
class _Part:
    """A run up to a step: the latents (scenes, 16, H, W) and the engine."""

    x: Tensor
    engine: Stitcher


class _Batch:
    """Some of the scenes, drawn together."""

    def __init__(self, pair: Pair, request: Request) -> None:
        self.request, self.large, self.small = request, Model(pair.large), Model(pair.small)
        self.parts: OrderedDict[object, _Part] = OrderedDict()

    @torch.inference_mode()
    def draw(self, plan: Plan) -> Tensor:
        """Latents (scenes, 16, H, W) of a plan."""
        keys = [self._key(plan, done) for done in range(len(plan.steps) + 1)]
        begun = max((done for done in range(len(keys)) if keys[done] in self.parts), default=0)
        part = self._copied(self.parts[keys[begun]]) if begun else self._fresh(plan)
        part.engine.plan = plan
        denoise = guided(lambda call: part.engine.velocity(call).velocity, self.request, self.large.full_pass)
        for index in range(begun, len(plan.steps)):
            sigma, lower = plan.sigmas[index], (*plan.sigmas, 0.0)[index + 1]
            if index and plan.steps[index] != plan.steps[index - 1] and keys[index] not in self.parts:
                self.parts[keys[index]] = self._copied(part)
            part.x = part.x + (lower - sigma) * denoise(part.x, sigma)
        if part.engine.report.failure:
            raise RuntimeError(part.engine.report.failure)
        while len(self.parts) > REMEMBERED:
            self.parts.popitem(last=False)
        return part.x

    def _fresh(self, plan: Plan) -> _Part:
        return _Part(self.request.noise(), Stitcher(self.large, self.small, plan, self.request.cfg))

    def _copied(self, part: _Part) -> _Part:
        kept = {id(held): held for held in (self.large, self.small, part.engine.plan)}
        return _Part(part.x, copy.deepcopy(part.engine, kept))

    def _key(self, plan: Plan, done: int) -> object:
        """All that decides the first `done` steps of a plan."""
        rests = any(step.kind is not LARGE.kind for step in plan.steps)
        begun = tuple((step, plan.is_probe(index)) for index, step in enumerate(plan.steps[:done]))
        return plan.sigmas[:done], begun, plan.score, plan.hold, rests


class Trials:
    """Training scenes with the large model's own pictures of them.

    Args:
        pair: the demo's.
        prompts, seeds: of the scenes.
        steps, cfg: of the runs.
    """

    def __init__(self, pair: Pair, prompts: list[str], seeds: list[int], steps: int = STEPS, cfg: float = CFG) -> None:
        self.pair = pair
        whole = Request(tuple(prompts), tuple(seeds), steps, cfg)
        self.run: Run = run_of(whole)
        parts = [slice(start, start + BATCH) for start in range(0, len(seeds), BATCH)]
        self.batches = [
            _Batch(pair, replace(whole, prompts=whole.prompts[part], seeds=whole.seeds[part])) for part in parts
        ]
        self.lpips, self.count = Lpips(), len(seeds)
        self.reference = [batch.draw(self.plan((LARGE,) * steps)) for batch in self.batches]
        self.pictures = [self._decoded(latents) for latents in self.reference]

    def plan(self, steps: tuple[Step, ...], score: str = "disagreement", hold: bool = False) -> Plan:
        """A plan over these runs' noise levels."""
        return Plan(steps, self.run.sigmas, "trial", score, hold)

    def distance(self, plan: Plan, bound: float = math.inf) -> Distance:
        """How far a plan's pictures are from the large model's own.

        Args:
            bound: where the mean LPIPS over all scenes must be above this, the scenes so far are enough.
        """
        lpips, rms = [], []
        for batch, reference, pictures in zip(self.batches, self.reference, self.pictures, strict=True):
            latents = batch.draw(plan)
            lpips.append(self.lpips(self._decoded(latents), pictures))
            rms.append((latents - reference).pow(2).mean((1, 2, 3)).sqrt())
            if float(torch.cat(lpips).sum()) > bound * self.count:
                break
        return Distance(torch.cat(lpips), torch.cat(rms))

    @torch.inference_mode()
    def _decoded(self, latents: Tensor) -> Tensor:
        return self.pair.autoencoder.decode(latents)
