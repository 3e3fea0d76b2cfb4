"""Choosing checkpoint and storage from the top of the page."""

from __future__ import annotations

from typing import Any

import torch
from backend.args import dynamic_args
from modules import sd_models, shared

forge_unet_storage_dtype_options = {
    "Automatic": (None, False),
    "float8-e4m3fn": (torch.float8_e4m3fn, False),
    "float8-e4m3fn (fp16 LoRA)": (torch.float8_e4m3fn, True),
}


def refresh_model_loading_parameters() -> None:
    """Note what the next generation shall load."""
    dtype, online = forge_unet_storage_dtype_options[shared.opts.forge_unet_storage_dtype]
    dynamic_args["online_lora"] = online
    sd_models.model_data.forge_loading_parameters = {
        "checkpoint_info": sd_models.select_checkpoint(),
        "additional_modules": shared.opts.forge_additional_modules,
        "unet_storage_dtype": dtype,
    }


def checkpoint_change(ckpt_name: str | None, save: bool = True, refresh: bool = True) -> bool:
    """Choose a checkpoint; returns whether it is another one."""
    wanted = sd_models.get_closet_checkpoint_match(ckpt_name)
    if wanted == sd_models.get_closet_checkpoint_match(shared.opts.data.get("sd_model_checkpoint")):
        return False
    shared.opts.set("sd_model_checkpoint", ckpt_name)
    if refresh:
        refresh_model_loading_parameters()
    return True


def modules_change(module_values: list[Any], save: bool = True, refresh: bool = True) -> bool:
    """Choose text encoders and VAE; the stand-in has none to choose."""
    return False
