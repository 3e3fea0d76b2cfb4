"""A1111's SD3 transformer: without q/k norms and without a second attention, whatever the file holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.mmdit import model
from lib_hybridstitch.mmdit.config import MMDiTConfig


class MMDiT(model.MMDiT):
    """Its call and attributes; the computation is the project's own."""

    def __init__(self, config: MMDiTConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(config)
        self.dtype = dtype

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, context: Tensor | None = None) -> Any:
        """Velocity of a latent; t is 1000·σ."""
        assert y is not None and context is not None
        return super().forward(x, t, y, context)
