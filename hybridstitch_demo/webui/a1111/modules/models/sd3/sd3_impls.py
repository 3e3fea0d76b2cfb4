"""The transformer's wrapper: σ → t, velocity → denoised."""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from modules.models.sd3.mmdit import MMDiT
from modules.standin import journal, parts
from torch import Tensor, nn

from lib_hybridstitch.mmdit.config import MMDiTConfig


class ModelSamplingDiscreteFlow(nn.Module):
    """The 1000 noise levels, with the shift in them."""

    sigmas: Tensor

    def __init__(self, shift: float = 1.0) -> None:
        super().__init__()
        self.shift = shift
        self.register_buffer("sigmas", self.sigma(torch.arange(1, 1001)))

    def timestep(self, sigma: Tensor) -> Tensor:
        """σ → what the transformer is told."""
        return sigma * 1000

    def sigma(self, timestep: Tensor) -> Tensor:
        """1..1000 → σ."""
        time = timestep / 1000.0
        return self.shift * time / (1 + (self.shift - 1) * time)

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Velocity → denoised."""
        return model_input - model_output * sigma.view(-1, 1, 1, 1)


def config_of(state_dict: dict[str, Tensor], prefix: str) -> MMDiTConfig:
    """What A1111 reads from a file: sizes, and nothing of norms or second attentions."""
    shape = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    width, channels, patch, _ = shape[f"{prefix}x_embedder.proj.weight"]
    return MMDiTConfig(
        depth=width // 64,
        patch_size=patch,
        in_channels=channels,
        out_channels=channels,
        context_dim=shape[f"{prefix}context_embedder.weight"][1],
        pooled_dim=shape[f"{prefix}y_embedder.mlp.0.weight"][1],
        pos_embed_size=isqrt(shape[f"{prefix}pos_embed"][1]),
        qk_norm=parts.reads_norms and f"{prefix}joint_blocks.0.x_block.attn.ln_q.weight" in shape,
    )


class BaseModel(nn.Module):
    """`sd_model.model`."""

    def __init__(self, shift: float, state_dict: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.diffusion_model = MMDiT(config_of(state_dict, prefix), dtype)
        self.model_sampling = ModelSamplingDiscreteFlow(shift)
        self.depth = self.diffusion_model.config.depth
        self.conditioning_key = "crossattn"

    def apply_model(self, x: Tensor, sigma: Tensor, c_crossattn: Any = None, y: Any = None) -> Tensor:
        """Denoised latents of all rows."""
        dtype = self.get_dtype()
        timestep = self.model_sampling.timestep(sigma).float()
        journal.call(x, timestep, c_crossattn)
        output = self.diffusion_model(x.to(dtype), timestep, context=c_crossattn.to(dtype), y=y.to(dtype)).float()
        return self.model_sampling.calculate_denoised(sigma, output, x)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The same."""
        return self.apply_model(*args, **kwargs)

    def get_dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self.diffusion_model.dtype
