"""Descriptions of models."""

from __future__ import annotations

from typing import Any

import torch


class SD3:
    """SD3 and SD3.5."""

    huggingface_repo = "stabilityai/stable-diffusion-3-medium-diffusers"
    unet_target, vae_target = "transformer", "vae"
    vae_key_prefix, text_encoder_key_prefix = ("first_stage_model.",), ("text_encoders.",)
    supported_inference_dtypes = (torch.float16, torch.bfloat16, torch.float32)
    unet_key_prefix: list[str]
    clip_target: Any
    model_type: Any
    ztsnr = False

    def __init__(self, unet_config: dict[str, Any]) -> None:
        self.unet_config = unet_config.copy()

    def clip_target(self, state_dict: Any = None) -> dict[str, str]:  # type: ignore[no-redef]
        """Text encoder → part; the loader replaces this method by its result."""
        return {"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5xxl": "text_encoder_3"}

    def model_type(self, state_dict: Any, prefix: str = "") -> str:  # type: ignore[no-redef]
        """What the model predicts; the loader replaces this method by its result."""
        return "FLOW"

    def inpaint_model(self) -> bool:
        """Whether it takes a masked picture too."""
        return False
