"""Tiny networks for tests: ours with random weights, and the same written in place as some hosts write theirs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hybridstitch_demo import in_place
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT, RMSNorm

LARGE = MMDiTConfig(
    depth=3, patch_size=2, in_channels=4, out_channels=4, context_dim=12, pooled_dim=10, pos_embed_size=16, qk_norm=True
)
MEDIUM = replace(LARGE, depth=2, dual_attention=(0,))
SD3 = replace(LARGE, depth=2, qk_norm=False)


def random_network(config: MMDiTConfig, seed: int = 0, kind: type[MMDiT] = MMDiT) -> MMDiT:
    """Build a network whose every tensor is random, so that nothing is hidden behind a zero."""
    network = kind(config).eval().requires_grad_(False)
    source = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        scale = 0.3 if name == "pos_embed" else 0.08
        tensor.copy_(torch.randn(tensor.shape, generator=source) * scale + (1.0 if ".ln_" in name else 0.0))
    return network


class InPlaceMMDiT(MMDiT):
    """The same network with blocks that change what they are given: norms, modulations and residual sums."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__(config)
        for block in self.joint_blocks:
            for side in (block.context_block, block.x_block):
                side.post_attention = in_place.post_attention.__get__(side)
                side.post_attention_x = in_place.post_attention_x.__get__(side)
                for attention in filter(None, (side.attn, getattr(side, "attn2", None))):
                    for norm in ("ln_q", "ln_k"):
                        if isinstance(getattr(attention, norm), RMSNorm):
                            setattr(attention, norm, in_place.InPlaceRMSNorm(64))


def inputs(
    config: MMDiTConfig, rows: int = 2, height: int = 8, width: int = 12, length: int = 5, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a latent (rows, C, H, W), context (rows, L, width) and pooled text (rows, width)."""
    source = torch.Generator().manual_seed(seed)
    latent = torch.randn(rows, config.in_channels, height, width, generator=source)
    context = torch.randn(rows, length, config.context_dim, generator=source)
    return latent, context, torch.randn(rows, config.pooled_dim, generator=source)
