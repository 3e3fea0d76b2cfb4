"""The transformer's wrapper: σ → t, velocity → denoised, dtypes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend import memory_management


class KModel(nn.Module):
    """`forge_objects.unet.model`."""

    def __init__(self, model: Any, diffusers_scheduler: Any, k_predictor: Any = None, config: Any = None) -> None:
        super().__init__()
        self.config = config
        self.storage_dtype: torch.dtype = model.storage_dtype
        self.computation_dtype: torch.dtype = model.computation_dtype
        self.diffusion_model = model
        self.predictor = k_predictor

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Denoised latents in fp32; t is σ."""
        dtype = self.computation_dtype
        extra = {key: value.to(dtype) if hasattr(value, "dtype") else value for key, value in kwargs.items()}
        velocity = self.diffusion_model(
            self.predictor.calculate_input(t, x).to(dtype),
            self.predictor.timestep(t).float(),
            context=c_crossattn.to(dtype),
            control=control,
            transformer_options=transformer_options or {},
            **extra,
        )
        return self.predictor.calculate_denoised(t, velocity.float(), x)

    def memory_required(self, input_shape: Any) -> float:
        """Estimate for a call over a latent of this shape (rows, C, H, W)."""
        size = memory_management.dtype_size(self.computation_dtype)
        return 1.28 * input_shape[0] * input_shape[2] * input_shape[3] * size * 16384
