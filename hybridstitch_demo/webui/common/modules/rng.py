"""Noise, each picture's from its own generator, so that a batch equals its pictures one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ImageRNG:
    """Noise of a batch; the first call gives the starting noise, further calls what ancestral samplers add."""

    def __init__(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        subseeds: Sequence[int] | None = None,
        subseed_strength: float = 0.0,
        seed_resize_from_h: int = 0,
        seed_resize_from_w: int = 0,
    ) -> None:
        self.shape, self.seeds = tuple(shape), list(seeds)
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.is_first = True

    def next(self) -> Tensor:
        """Noise (images, channels, H, W)."""
        self.is_first = False
        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self.generators])
