"""Halves of a block that change what they are given, as ersatzForge's do: norms, modulations and residual sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.mmdit.model import RMSNorm


class InPlaceRMSNorm(RMSNorm):
    """Normalises its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x, which is spoilt."""
        x.mul_(torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))
        return x * self.weight.to(x.dtype)


def post_attention(
    side: Any, attn: Tensor, x: Tensor, gate: Tensor, shift_mlp: Tensor, scale_mlp: Tensor, gate_mlp: Tensor
) -> Tensor:
    """The reference's second half of a block, adding to x (rows, L, hidden) in place and spoiling its modulation."""
    x.add_(gate.unsqueeze(1) * side.attn.post_attention(attn))
    modulated = torch.addcmul(shift_mlp.unsqueeze(1), side.norm2(x), scale_mlp.add_(1).unsqueeze(1))
    return x.add_(gate_mlp.unsqueeze(1) * side.mlp(modulated))


def post_attention_x(
    side: Any,
    attn: Tensor,
    attn2: Tensor,
    x: Tensor,
    gate: Tensor,
    shift_mlp: Tensor,
    scale_mlp: Tensor,
    gate_mlp: Tensor,
    gate2: Tensor,
) -> Tensor:
    """The same with a second attention."""
    x.add_(gate2.unsqueeze(1) * side.attn2.post_attention(attn2))
    result: Tensor = side.post_attention(attn, x, gate, shift_mlp, scale_mlp, gate_mlp)
    return result
