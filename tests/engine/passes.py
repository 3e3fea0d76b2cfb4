"""Sampling passes over tiny real networks, for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Evaluation, Model, Prediction, Row
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.tokens import TokenGrid
from lib_hybridstitch.plans.plan import Plan
from tests.networks import LARGE, MEDIUM, inputs, random_network
from tests.plans.schedules import shifted, written

GRID = TokenGrid(4, 6)
TOKENS = GRID.count
PAIR: tuple[Row, ...] = ((0, COND), (0, UNCOND))
GUIDANCE = 3.0


@cache
def large_network(kind: type[MMDiT] = MMDiT) -> MMDiT:
    """The large model's network; nobody changes it."""
    return random_network(LARGE, 0, kind)


@cache
def small_network(kind: type[MMDiT] = MMDiT) -> MMDiT:
    """The small model's network; nobody changes it."""
    return random_network(MEDIUM, 7, kind)


def large_model(kind: type[MMDiT] = MMDiT) -> Model:
    """As a host hands the large model over."""
    return Model(large_network(kind), guided_by_layers=True)


def latents(images: int = 2, seed: int = 9) -> Tensor:
    """Noise (images, C, H, W)."""
    return inputs(LARGE, rows=4, seed=seed)[0][:images]


def evaluation(x: Tensor, sigma: float, rows: Sequence[Row] = PAIR, **more: Any) -> Evaluation:
    """One call; the text of a row is its own, whatever order it comes in."""
    _, context, pooled = inputs(LARGE, rows=6)
    streams = {COND: 0, UNCOND: 1, "cond 2": 2}
    index = [2 * streams[stream] + image for image, stream in rows]
    more.setdefault("full_pass", large_model().full_pass)
    return Evaluation(x, torch.full((len(rows),), sigma), context[index], pooled[index], tuple(rows), **more)


def both(x: Tensor, sigma: float, **more: Any) -> Evaluation:
    """One call of one picture's two rows, from its latent (C, H, W)."""
    return evaluation(torch.stack([x, x]), sigma, **more)


def stitcher(plan: str | Plan, kind: type[MMDiT] = MMDiT, **options: Any) -> Stitcher:
    """An engine on the pair of networks."""
    given = written(plan) if isinstance(plan, str) else plan
    options = {"small": Model(small_network(kind)), "guidance": GUIDANCE, **options}
    return Stitcher(options.pop("large", large_model(kind)), plan=given, **options)


GROUPS = {
    "joint": lambda cond, uncond: [cond + uncond],
    "uncond first": lambda cond, uncond: [uncond + cond],
    "split": lambda cond, uncond: [cond, uncond],
    "singles": lambda cond, uncond: [[row] for row in cond + uncond],
    "singles, uncond first": lambda cond, uncond: [[row] for row in uncond + cond],
}


def sample(
    engine: Stitcher | Callable[[Evaluation], Tensor],
    images: Sequence[int] = (0,),
    calls: str = "joint",
    sigmas: Sequence[float] = (),
    **more: Any,
) -> Tensor:
    """Integrate with Euler and guidance, grouping rows as hosts do; returns latents (images, C, H, W).

    Args:
        engine: to sample with; or a function of an evaluation, (rows, C, H, W).
        images: which of the noises.
        calls: one of `GROUPS`.
        sigmas: the schedule, where the plan has none.
    """
    predict = (lambda call: engine.velocity(call).velocity) if isinstance(engine, Stitcher) else engine
    levels = engine.plan.sigmas if isinstance(engine, Stitcher) else tuple(sigmas)
    x = dict(zip(images, latents(4)[list(images)]))
    groups = GROUPS[calls]([(image, COND) for image in images], [(image, UNCOND) for image in images])
    for sigma, following in zip(levels, (*levels[1:], 0.0)):
        velocity: dict[Row, Tensor] = {}
        for rows in groups:
            call = evaluation(torch.stack([x[image] for image, _ in rows]), sigma, rows, **more)
            velocity.update(zip(rows, predict(call)))
        for image in images:
            guided = torch.lerp(velocity[image, UNCOND], velocity[image, COND], GUIDANCE)
            x[image] = x[image] + (following - sigma) * guided
    if isinstance(engine, Stitcher):
        assert not engine.report.failure
    return torch.stack(list(x.values()))


def alone(network: MMDiT, images: Sequence[int] = (0,), steps: int = 6) -> Tensor:
    """What a network draws by its own forward pass."""

    def forward(call: Evaluation) -> Tensor:
        return network(call.x, call.sigma * 1000, call.pooled, call.context)

    return sample(forward, images, sigmas=shifted(steps))


def letters(engine: Stitcher) -> str:
    """What was done, one letter per evaluation."""
    return "".join(record.kind.value for record in engine.report.evaluations())


def constant(*values: float) -> Callable[[Evaluation], Prediction]:
    """A full pass whose velocity is one number per call; the rows' differ by image and stream."""
    rest = iter(values)

    def full_pass(call: Evaluation) -> Prediction:
        level = next(rest)
        sizes = [level + 100 * image + (10 if stream == UNCOND else 0) for image, stream in call.rows]
        return Prediction(torch.ones_like(call.x) * torch.tensor(sizes).view(-1, 1, 1, 1))

    return full_pass
