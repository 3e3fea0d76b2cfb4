"""Euler, Heun and DPM++ 2M of the stand-in: diffusers' solvers, at the host's noise levels, in the host's loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridstitch_demo.webui.common.modules.sd_samplers_functions import dpmpp_2m, euler, heun

Levels = list[float]
Loop = Callable[..., Tensor]

SHIFTED = [3 * t / (1 + 2 * t) for t in (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0)]
SCHEDULES: dict[str, Levels] = {
    "txt2img": SHIFTED,
    "img2img": SHIFTED[4:],
    "one step": [1.0, 0.0],
    "Karras": [1.0, 0.233, 0.037, 0.003, 0.0],
}
schedules = pytest.mark.parametrize("levels", SCHEDULES.values(), ids=SCHEDULES)
loops = pytest.mark.parametrize("loop", [euler, heun, dpmpp_2m])
SPREAD = 0.5
"""Standard deviation of the made-up pictures."""


class Curved:
    """A smooth model that is not linear; keeps what it was called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, dict[str, Any]]] = []

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        self.seen.append((x, sigma, extra))
        return torch.tanh(x * (1 - 0.5 * sigma.reshape(-1, 1, 1, 1))) * 0.7 + 0.1

    @property
    def levels(self) -> Levels:
        """The σ of every call."""
        return [float(sigma[0]) for _, sigma, _ in self.seen]


def gaussian(x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
    """The exact denoiser of pictures that are Gaussian noise of `SPREAD`; its flow is linear, with a known end."""
    level = sigma.reshape(-1, 1, 1, 1)
    clean = ((1 - level) * SPREAD) ** 2
    return x * (1 - level) * SPREAD**2 / (clean + level**2)


def noise() -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def walk(loop: Loop, levels: Levels, model: Any = None) -> tuple[Tensor, Curved, list[dict[str, Any]]]:
    """The end of a loop, its model, and what its callback was told."""
    used, told = model or Curved(), []
    end = loop(used, noise(), torch.tensor(levels), {"cond": "frog"}, told.append)
    return end, used, told


def written_out(loop: Loop, levels: Levels) -> Tensor:
    """The same by the formulas of k_diffusion (Euler, Heun) and of arXiv 2211.01095 (DPM++ 2M), in float64."""
    model, x, before = Curved(), noise().double(), None
    sigmas = torch.tensor(levels).double()
    for i in range(len(sigmas) - 1):
        now, following = sigmas[i], sigmas[i + 1]
        denoised = model(x, now.expand(2))
        slope, width = (x - denoised) / now, following - now
        if loop is dpmpp_2m and before is not None and following > 0:
            last, here, ahead = (((1 - sigma) / sigma).log() for sigma in sigmas[i - 1 : i + 2])
            target = denoised + (denoised - before) * (ahead - here) / (2 * (here - last))
            x = following / now * x + (1 - following / now) * target
        elif loop is heun and following > 0:
            guess = x + slope * width
            x = x + (slope + (guess - model(guess, following.expand(2))) / following) / 2 * width
        else:
            x = x + slope * width
        before = denoised
    return x


@schedules
@pytest.mark.parametrize(("loop", "accuracy"), [(euler, 1e-5), (heun, 1e-5), (dpmpp_2m, 1e-4)])
def test_a_loop_agrees_with_its_formula(loop: Loop, accuracy: float, levels: Levels) -> None:
    end, _, _ = walk(loop, levels)
    assert end.dtype == torch.float32
    assert float((end - written_out(loop, levels)).abs().max()) < accuracy


@schedules
@loops
def test_a_loop_visits_the_hosts_levels_and_tells_every_step_once(loop: Loop, levels: Levels) -> None:
    _, model, told = walk(loop, levels)
    host = torch.tensor(levels).tolist()[:-1]
    twice = host[:1] + [sigma for sigma in host[1:] for _ in range(2)]
    assert model.levels == (twice if loop is heun else host), "to the last bit, and Heun's inner ones twice in a row"
    assert all(sigma.shape == (2,) and extra == {"cond": "frog"} for _, sigma, extra in model.seen)
    assert [entry["i"] for entry in told] == list(range(len(host)))
    assert [float(entry["sigma"]) for entry in told] == [float(entry["sigma_hat"]) for entry in told] == host
    opening = model.seen[::2] if loop is heun else model.seen
    for entry, (x, sigma, _) in zip(told, opening):
        assert torch.equal(entry["x"], x)
        assert torch.equal(entry["denoised"], Curved()(x, sigma))


@pytest.mark.parametrize("first", [1.0, 0.8])
@pytest.mark.parametrize(("loop", "low", "high"), [(euler, 0.8, 1.3), (heun, 1.8, 2.3), (dpmpp_2m, 1.8, 2.3)])
def test_the_order_of_convergence_to_the_exact_solution(loop: Loop, low: float, high: float, first: float) -> None:
    last = 0.1  # the one step from there to 0 ends at what the model makes of it

    def spread(sigma: float) -> float:
        return math.hypot((1 - sigma) * SPREAD, sigma)

    def error(steps: int) -> float:
        levels = [*(first + (last - first) * step / steps for step in range(steps + 1)), 0.0]
        exact = gaussian(noise() * spread(last) / spread(first), torch.tensor([last, last]))
        return float((walk(loop, levels, gaussian)[0] - exact).norm() / exact.norm())

    orders = [math.log2(error(steps) / error(2 * steps)) for steps in (16, 32)]
    assert all(low < order < high for order in orders), orders


@pytest.mark.parametrize("first", [1.0, 1.0000001])
@loops
def test_pictures_are_finite_from_pure_noise_on(loop: Loop, first: float) -> None:
    end, model, _ = walk(loop, [first, *SHIFTED[1:]])
    assert model.levels[0] == float(torch.tensor(first)), "the model gets the table's level as it is"
    assert all(x.isfinite().all() for x, _, _ in model.seen) and end.isfinite().all()


@loops
def test_a_second_zero_divides_by_zero_after_the_last_picture(loop: Loop) -> None:
    end, model, told = walk(loop, [*SHIFTED, 0.0])
    once, _, _ = walk(loop, SHIFTED)
    assert end.isnan().all()
    assert torch.equal(model.seen[-1][0], once), "the evaluation at 0 still gets the picture"
    assert model.levels.count(0.0) == 1 and [entry["i"] for entry in told] == list(range(len(SHIFTED)))


def test_the_hosts_levels_are_left_alone() -> None:
    for loop in (euler, heun, dpmpp_2m):
        sigmas = torch.tensor([1.0000001, 0.5, 0.0])
        before = sigmas.clone()
        loop(Curved(), noise(), sigmas, {}, lambda told: None)
        assert torch.equal(sigmas, before)


@pytest.mark.parametrize("loop", [euler, heun])
def test_a_schedule_may_begin_with_a_level_twice(loop: Loop) -> None:
    levels = [0.9, 0.9, 0.5, 0.0]
    torch.testing.assert_close(walk(loop, levels)[0].double(), written_out(loop, levels), rtol=0, atol=1e-5)
