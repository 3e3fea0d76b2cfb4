"""What the engine remembers between evaluations of one run, per row and per image."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.plans.profile import EDGE, log_snr

SAME_SIGMA = 1e-6
LARGEST_REACH = 4.0
"""Extrapolation never reaches further than this many times the distance of the two points it rests on."""


@dataclass
class RowState:
    """The large model's last two velocities of one row, each token with the σ at which it was computed.

    Args:
        velocity, previous: patches (N, width).
        sigma, previous_sigma: (N,).
        whole_at: the σ of the last velocity that was known for all tokens at once.
    """

    velocity: Tensor
    sigma: Tensor
    previous: Tensor
    previous_sigma: Tensor
    whole_at: float

    @classmethod
    def start(cls, velocity: Tensor, sigma: float) -> RowState:
        """Remember a first full result, patches (N, width)."""
        levels = torch.full(velocity.shape[:1], sigma, dtype=torch.float32, device=velocity.device)
        return cls(velocity, levels, velocity, levels, sigma)

    def update(self, velocity: Tensor, sigma: float, tokens: Tensor | None) -> None:
        """Remember new velocities: all of them (N, width), or those of `tokens` (K,), as (K, width).

        A second result at the same σ (Heun) replaces the last one instead of pushing it back.
        """
        if tokens is None:
            moved = (self.sigma - sigma).abs() > SAME_SIGMA
            self.previous = torch.where(moved[:, None], self.velocity, self.previous)
            self.previous_sigma = torch.where(moved, self.sigma, self.previous_sigma)
            self.velocity = velocity
            self.sigma = torch.full_like(self.sigma, sigma)
            self.whole_at = sigma
            return
        last, level = self.velocity[tokens], self.sigma[tokens]
        moved = (level - sigma).abs() > SAME_SIGMA
        self.previous = self.previous.index_copy(0, tokens, torch.where(moved[:, None], last, self.previous[tokens]))
        self.previous_sigma = self.previous_sigma.index_copy(
            0, tokens, torch.where(moved, level, self.previous_sigma[tokens])
        )
        self.velocity = self.velocity.index_copy(0, tokens, velocity)
        self.sigma = self.sigma.index_fill(0, tokens, sigma)

    def at(self, sigma: float, share: float) -> Tensor:
        """Return the velocity (N, width) expected at `sigma`: the last one, moved along the line through the last two.

        The line runs in λ, the logarithm of the signal-to-noise ratio, in which velocities bend least.

        Args:
            share: 0 holds the last velocity, 1 is the full two-point extrapolation.
        """
        if share == 0:
            return self.velocity
        usable = (self.sigma - self.previous_sigma).abs() > SAME_SIGMA
        last = _log_snr(self.sigma)
        distance = torch.where(usable, last - _log_snr(self.previous_sigma), torch.ones_like(last))
        reach = (log_snr(sigma) - last) / distance
        factor = torch.where(usable, reach, torch.zeros_like(reach)).clamp(0, LARGEST_REACH) * share
        return torch.addcmul(self.velocity, factor[:, None].to(self.velocity.dtype), self.velocity - self.previous)


def _log_snr(sigma: Tensor) -> Tensor:
    """`profile.log_snr` of every token's noise level, (N,)."""
    return torch.log((1 - sigma).clamp_min(0) + EDGE) - torch.log(sigma.clamp_min(0) + EDGE)


@dataclass
class ImageState:
    """What decides the next mask of one image.

    Args:
        scores: stream → (N,), as of the last evaluation that had them.
        clean: stream → x0 patches (N, width), for the score "change".
        tokens: the mask now, (K,) ascending.
        skipped: (N,) evaluations for which each token was not computed (RAS).
        changes: SRDiffusion's change of the large model's output per evaluation.
        outputs: stream → the output (C, H, W) that changes are measured against.
        settled: whether the adaptive switch has happened.
        guidance: the velocity without prompt minus the one with it (N, width), when both were last known at one σ.
    """

    scores: dict[str, Tensor] = field(default_factory=dict)
    clean: dict[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None
    skipped: Tensor | None = None
    changes: list[float] = field(default_factory=list)
    fresh_changes: list[float] = field(default_factory=list)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    settled: bool = False
    guidance: Tensor | None = None

    def score(self) -> Tensor | None:
        """Mean score over the streams (N,), or None before any was seen."""
        known = [self.scores[stream] for stream in sorted(self.scores)]
        return torch.stack(known).mean(0) if known else None


@dataclass
class RunState:
    """All of one run; dropped with it."""

    rows: dict[tuple[int, str], RowState] = field(default_factory=dict)
    images: dict[int, ImageState] = field(default_factory=dict)
    large_cache: KVCache = field(default_factory=KVCache)
    small_cache: KVCache = field(default_factory=KVCache)
    evaluation: int = -1
    sigma: float = float("inf")
    previous_sigma: float = float("inf")
    seen: set[tuple[int, str]] = field(default_factory=set)
    since_full: int | None = None
    full: bool = False

    def image(self, index: int) -> ImageState:
        """State of one image, made at its first row."""
        return self.images.setdefault(index, ImageState())

    def drop(self) -> None:
        """Free everything held; the count of evaluations goes on."""
        self.rows.clear()
        self.images.clear()
        self.large_cache.drop()
        self.small_cache.drop()
