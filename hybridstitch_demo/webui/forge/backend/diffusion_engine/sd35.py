"""SD3 and SD3.5: `shared.sd_model`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from modules import sd_encoding
from torch import Tensor

from backend.diffusion_engine.base import ForgeObjects
from backend.modules.k_prediction import PredictionDiscreteFlow
from backend.patcher.unet import UnetPatcher


class StableDiffusion3:
    """Transformer, text encoders and VAE, each three times: as loaded, with LoRAs, and as patched for this pass."""

    def __init__(self, estimated_config: Any, huggingface_components: dict[str, Any]) -> None:
        self.model_config = estimated_config
        self.architecture = huggingface_components["transformer"].architecture
        unet = UnetPatcher.from_model(
            model=huggingface_components["transformer"],
            diffusers_scheduler=None,
            k_predictor=PredictionDiscreteFlow(shift=3.0),
            config=estimated_config,
        )
        vae = SimpleNamespace(latent_channels=self.architecture.in_channels)
        self.forge_objects = ForgeObjects(unet=unet, clip=None, vae=vae, clipvision=None)
        self.forge_objects_original = self.forge_objects.shallow_copy()
        self.forge_objects_after_applying_lora = self.forge_objects.shallow_copy()
        self.current_lora_hash = str([])
        self.is_inpaint = self.is_sd1 = self.is_sd2 = self.is_sdxl = self.use_distilled_cfg_scale = False
        self.is_sd3, self.tiling_enabled = True, False
        self.comments: list[str] = []
        self.extra_generation_params: dict[str, Any] = {}
        self.sd_checkpoint_info: Any = None
        self.sd_model_hash: str | None = None
        self.filename = ""

    @property
    def latent_channels(self) -> int:
        """Stand-in: Forge asks the VAE."""
        return self.forge_objects.vae.latent_channels

    @torch.inference_mode()
    def get_learned_conditioning(self, prompt: list[str]) -> dict[str, Tensor]:
        """Texts as 11 tokens per chunk + 36 (77 and 256 on the host); an empty negative prompt is all zeros."""
        lengths = (sd_encoding.CLIP_TOKENS, sd_encoding.FORGE_T5_TOKENS)
        cond = sd_encoding.encode(prompt, *lengths, self.architecture.context_dim, self.architecture.pooled_dim)
        if sd_encoding.zeroes_empty(prompt):
            return {key: torch.zeros_like(value) for key, value in cond.items()}
        return cond

    def set_clip_skip(self, clip_skip: int) -> None:
        """Nothing, for SD3."""

    def decode_first_stage(self, x: Tensor) -> Tensor:
        """Latents as pictures."""
        return sd_encoding.decode(x)
