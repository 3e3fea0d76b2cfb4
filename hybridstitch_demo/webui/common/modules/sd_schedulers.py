"""Noise schedules by name. Source: Karras et al., arXiv 2206.00364, for karras; the others are linear in something."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Scheduler:
    """A schedule and what it wants to be given."""

    name: str
    label: str
    function: Callable[..., Tensor] | None
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: list[str] | None = None


def with_zero(sigmas: Tensor) -> Tensor:
    """Append the final 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    """Linear in σ to the power of 1/ρ."""
    ramp, low, high = torch.linspace(0, 1, n), sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return with_zero((high + ramp * (low - high)) ** rho)


def exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Tensor:
    """Linear in log σ."""
    return with_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n).exp())


def uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any = "cpu") -> Tensor:
    """The model's own."""
    sigmas: Tensor = inner_model.get_sigmas(n)
    return sigmas


def simple(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any = "cpu") -> Tensor:
    """Evenly through the model's table, from its end."""
    stride = len(inner_model.sigmas) / n
    return with_zero(torch.stack([inner_model.sigmas[-(1 + int(i * stride))] for i in range(n)]).float())


def _by_time(n: int, low: float, high: float, model: Any, last: bool) -> Tensor:
    start, end = (float(model.sigma_to_t(torch.tensor(value))) for value in (high, low))
    times = torch.linspace(start, end, n) if last else torch.linspace(start, end, n + 1)[:-1]
    return with_zero(torch.stack([model.t_to_sigma(time).reshape(()) for time in times]).float())


def normal(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any = "cpu") -> Tensor:
    """Linear in time, down to the lowest noise level."""
    return _by_time(n, sigma_min, sigma_max, inner_model, True)


def sgm_uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any = "cpu") -> Tensor:
    """Linear in time, ending one step above the lowest noise level."""
    return _by_time(n, sigma_min, sigma_max, inner_model, False)


schedulers = [
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", uniform, need_inner_model=True),
    Scheduler("karras", "Karras", karras, default_rho=7.0),
    Scheduler("exponential", "Exponential", exponential),
    Scheduler("sgm_uniform", "SGM Uniform", sgm_uniform, need_inner_model=True, aliases=["SGMUniform"]),
    Scheduler("simple", "Simple", simple, need_inner_model=True),
    Scheduler("normal", "Normal", normal, need_inner_model=True),
]
schedulers_map = {**{one.name: one for one in schedulers}, **{one.label: one for one in schedulers}}
