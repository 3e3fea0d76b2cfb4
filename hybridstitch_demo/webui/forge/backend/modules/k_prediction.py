"""Noise levels of flow models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PredictionDiscreteFlow(nn.Module):
    """1000 noise levels, with the shift in them."""

    sigmas: Tensor

    def __init__(self, sigma_data: float = 1.0, prediction_type: str = "const", shift: float = 1.0) -> None:
        super().__init__()
        self.sigma_data, self.prediction_type, self.shift = sigma_data, prediction_type, shift
        self.register_buffer("sigmas", self.sigma(torch.arange(1, 1001)))

    @property
    def sigma_min(self) -> Tensor:
        """Lowest noise level."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """Highest noise level."""
        return self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """σ → what the transformer is told."""
        return sigma * 1000

    def sigma(self, timestep: Tensor) -> Tensor:
        """0..1000 → σ."""
        time = timestep / 1000.0
        return self.shift * time / (1 + (self.shift - 1) * time)

    def percent_to_sigma(self, percent: float) -> float:
        """Share of a run → σ."""
        return 1.0 - min(max(percent, 0.0), 1.0)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Flow models take the latent as it is."""
        return noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Velocity → denoised."""
        return model_input - model_output * sigma.view(-1, 1, 1, 1)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """A latent at a noise level."""
        return sigma * noise + (1.0 - sigma) * latent_image
