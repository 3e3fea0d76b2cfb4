"""A1111's checkpoints and the model that is loaded from one."""

from __future__ import annotations

import sys
from typing import Any

import torch
from modules import devices, script_callbacks, shared
from modules.models.sd3.sd3_model import SD3Inferencer
from modules.sd_checkpoints import (  # noqa: F401 - the host's names
    CheckpointInfo,
    checkpoint_aliases,
    checkpoint_tiles,
    checkpoints_list,
    get_closet_checkpoint_match,
    list_models,
    model_hash,
    select_checkpoint,
)
from safetensors.torch import load_file
from torch import nn


class SdModelData:
    """The current model, loaded when it is first asked for."""

    def __init__(self) -> None:
        self.sd_model: Any = None
        self.loaded_sd_models: list[Any] = []
        self.was_loaded_at_least_once = False

    def get_sd_model(self) -> Any:
        """The current model."""
        if not self.was_loaded_at_least_once and self.sd_model is None:
            load_model()
        return self.sd_model

    def set_sd_model(self, v: Any, already_loaded: bool = False) -> None:
        """Make a model the current one."""
        self.sd_model = v
        self.loaded_sd_models[:] = [one for one in self.loaded_sd_models if one is not v]
        if v is not None:
            self.loaded_sd_models.insert(0, v)


model_data = SdModelData()


def read_state_dict(checkpoint_file: str) -> dict[str, Any]:
    """All tensors of a file."""
    return load_file(checkpoint_file)


def _note(model: Any, info: CheckpointInfo) -> None:
    model.sd_model_hash = info.calculate_shorthash()
    model.sd_checkpoint_info, model.sd_model_checkpoint = info, info.filename
    shared.opts.data["sd_model_checkpoint"] = shared.opts.data["sd_model_checkpoint"] or info.title


def load_model(checkpoint_info: CheckpointInfo | None = None, already_loaded_state_dict: Any = None) -> Any:
    """Build a model from a file and make it the current one."""
    info = checkpoint_info or select_checkpoint()
    state_dict = already_loaded_state_dict or read_state_dict(info.filename)
    model = SD3Inferencer(state_dict).to(devices.dtype).eval().requires_grad_(False)
    model.model.diffusion_model.dtype = devices.dtype
    model.load(state_dict)
    _note(model, info)
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    script_callbacks.model_loaded_callback(model)
    model.cond_stage_model_empty_prompt = model.get_learned_conditioning([""])["crossattn"]
    return model


def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None, forced_reload: bool = False) -> Any:
    """Make a checkpoint current: its weights go into the model that is there, which keeps being the same object.

    A file of another size fails; the weights that were there are put back.
    """
    info, model = info or select_checkpoint(), sd_model or model_data.sd_model
    if model is None:
        return load_model(info)
    if model.sd_model_checkpoint == info.filename and not forced_reload:
        return model
    before = model.sd_checkpoint_info
    try:
        model.load(read_state_dict(info.filename))
    except RuntimeError:
        model.load(read_state_dict(before.filename))
        raise
    _note(model, info)
    script_callbacks.model_loaded_callback(model)
    model_data.set_sd_model(model)
    return model


def unload_model_weights(sd_model: Any = None, info: Any = None) -> Any:
    """Move the current model away from the GPU."""
    (sd_model or shared.sd_model).to(devices.cpu)
    return sd_model


def apply_networks(model: Any, networks: list[Any]) -> None:
    """Put LoRAs on the main model's weights, in place; what was there before is kept beside them."""
    lora = sys.modules["networks"]
    transformer: nn.Module = model.model.diffusion_model
    backup = vars(transformer).setdefault("network_weights_backup", {})
    parameters = dict(transformer.named_parameters())
    with torch.no_grad():
        for key, weight in backup.items():
            parameters[key].copy_(weight)
        backup.clear()
        for network in networks:
            for key, difference in lora.differences(network.name, iter(parameters.items())).items():
                backup.setdefault(key, parameters[key].clone())
                parameters[key].add_(network.unet_multiplier * difference)
