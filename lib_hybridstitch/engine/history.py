"""A model's last two velocities of one row, and the one expected at another noise level.

The line through the last two runs in λ, the logarithm of the signal-to-noise ratio, in which velocities change most
evenly. It is followed a part of the way only, late enough, and not far: in much noise, and where it would have to reach
further than it has seen, the last velocity is held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib_hybridstitch.plans.profile import EDGE

SAME_SIGMA = 1e-6
FOLLOWED = 0.9
"""Share of the way along the line."""
NOISY = 0.75
"""Above this noise level, where the layout is decided, velocities turn: the last one is held."""
LONGEST_REACH = 2.5
"""How far the line is followed, in distances of the two points it rests on."""


@dataclass(frozen=True)
class History:
    """The last two velocities of one row, each token with the σ at which it was computed.

    Args:
        velocity, previous: patches (N, width).
        sigma, previous_sigma: (N,).
    """

    velocity: Tensor
    sigma: Tensor
    previous: Tensor
    previous_sigma: Tensor

    @classmethod
    def begin(cls, velocity: Tensor, sigma: float) -> History:
        """Remember a first full result, patches (N, width)."""
        levels = torch.full(velocity.shape[:1], sigma, dtype=torch.float32, device=velocity.device)
        return cls(velocity, levels, velocity, levels)

    @property
    def has_trend(self) -> bool:
        """Whether every token has been computed at two noise levels."""
        return bool(((self.sigma - self.previous_sigma).abs() > SAME_SIGMA).all())

    def then(self, velocity: Tensor, sigma: float, tokens: Tensor | None = None) -> History:
        """The history after new velocities: all of them (N, width), or those of `tokens` (K,), as (K, width).

        A second result at the same σ (Heun) replaces the last one instead of pushing it back.
        """
        if tokens is not None:
            velocity = self.velocity.index_copy(0, tokens, velocity)
            levels = self.sigma.index_fill(0, tokens, sigma)
            renewed = torch.zeros_like(self.sigma, dtype=torch.bool).index_fill(0, tokens, True)
        else:
            levels = torch.full_like(self.sigma, sigma)
            renewed = torch.ones_like(self.sigma, dtype=torch.bool)
        moved = renewed & ((self.sigma - sigma).abs() > SAME_SIGMA)
        return History(
            velocity,
            levels,
            torch.where(moved[:, None], self.velocity, self.previous),
            torch.where(moved, self.sigma, self.previous_sigma),
        )

    def at(self, sigma: float, hold: bool = False) -> Tensor:
        """The velocity (N, width) expected at `sigma`; the last one where `hold` is set."""
        if hold or sigma > NOISY:
            return self.velocity
        last, before = _log_snr(self.sigma), _log_snr(self.previous_sigma)
        known = (self.sigma - self.previous_sigma).abs() > SAME_SIGMA
        distance = torch.where(known, last - before, torch.ones_like(last))
        reach = (_log_snr(torch.full_like(last, sigma)) - last) / distance
        usable = known & (reach > 0) & (reach <= LONGEST_REACH)
        factor = torch.where(usable, reach, torch.zeros_like(reach))
        factor = FOLLOWED * factor[:, None].to(self.velocity.dtype)
        return torch.addcmul(self.velocity, factor, self.velocity - self.previous)


def _log_snr(sigma: Tensor) -> Tensor:
    """`profile.log_snr` of every token's noise level, (N,)."""
    return torch.log((1 - sigma).clamp_min(0) + EDGE) - torch.log(sigma.clamp_min(0) + EDGE)
