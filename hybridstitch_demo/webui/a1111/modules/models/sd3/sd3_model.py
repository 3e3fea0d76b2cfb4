"""The whole SD3 model: `shared.sd_model`."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from modules import devices, sd_encoding
from modules.models.sd3.sd3_impls import BaseModel
from torch import Tensor, nn

PREFIX = "model.diffusion_model."


class SD3Denoiser(nn.Module):
    """A schedule over the model's noise levels, and the model under k-diffusion's call."""

    sigmas: Tensor
    log_sigmas: Tensor

    def __init__(self, inner_model: Any, sigmas: Tensor) -> None:
        super().__init__()
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())
        self.inner_model = inner_model

    def get_sigmas(self, n: int) -> Tensor:
        """ "Automatic": evenly through the table, down to the lowest noise level, then 0."""
        return torch.cat([self.t_to_sigma(torch.linspace(len(self.sigmas) - 1, 0, n)), self.sigmas.new_zeros(1)])

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """Place of a noise level in the table, between entries by its logarithm."""
        low = (self.log_sigmas <= sigma.log()).sum().sub(1).clamp(0, len(self.sigmas) - 2)
        below, above = self.log_sigmas[low], self.log_sigmas[low + 1]
        return low + ((sigma.log() - below) / (above - below)).clamp(0, 1)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """And back."""
        low, high, share = t.floor().long(), t.ceil().long(), t.frac()
        return ((1 - share) * self.log_sigmas[low] + share * self.log_sigmas[high]).exp()

    def forward(self, x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        """Denoised latents."""
        return self.inner_model.apply_model(x, sigma, cond)


class SD3Inferencer(nn.Module):
    """Transformer, text encoders and VAE."""

    def __init__(self, state_dict: dict[str, Tensor], shift: float = 3) -> None:
        super().__init__()
        self.model = BaseModel(shift, state_dict, PREFIX, devices.dtype)
        self.alphas_cumprod = 1 / (self.model.model_sampling.sigmas**2 + 1)
        self.latent_channels = self.model.diffusion_model.config.in_channels
        self.cond_stage_key, self.parameterization = "txt", "eps"
        self.is_sd3, self.is_sd1, self.is_sd2, self.is_sdxl, self.is_ssd = True, False, False, False, False
        self.lowvram = False
        self.sd_checkpoint_info: Any = None
        self.sd_model_hash: str | None = None
        self.sd_model_checkpoint = ""
        self.used_config = "sd3-inference.yaml"

    def load(self, state_dict: dict[str, Tensor]) -> None:
        """Take the transformer's weights, without a word about those that have no place here."""
        own = {name[len(PREFIX) :]: tensor for name, tensor in state_dict.items() if name.startswith(PREFIX)}
        self.model.diffusion_model.load_state_dict(own, strict=False)

    def ema_scope(self) -> contextlib.AbstractContextManager[None]:
        """No averaged weights."""
        return contextlib.nullcontext()

    def get_learned_conditioning(self, batch: list[str]) -> dict[str, Tensor]:
        """Texts as 22 tokens per chunk (154 on the host) and vectors."""
        config = self.model.diffusion_model.config
        return sd_encoding.encode(batch, 2 * sd_encoding.CLIP_TOKENS, 0, config.context_dim, config.pooled_dim)

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """Denoised latents; t is σ."""
        return self.model(x, t, c_crossattn=cond["crossattn"], y=cond["vector"])

    def decode_first_stage(self, latent: Tensor) -> Tensor:
        """Latents as pictures."""
        return sd_encoding.decode(latent)

    def create_denoiser(self) -> SD3Denoiser:
        """The model for samplers."""
        return SD3Denoiser(self, self.model.model_sampling.sigmas)

    def add_noise_to_latent(self, x: Tensor, noise: Tensor, amount: Tensor) -> Tensor:
        """A latent at a noise level."""
        return x * (1 - amount) + noise * amount
