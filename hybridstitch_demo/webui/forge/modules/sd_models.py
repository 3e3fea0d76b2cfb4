"""Forge's checkpoints and the model that is loaded from one."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from backend import memory_management
from backend.args import dynamic_args
from backend.loader import forge_loader
from backend.patcher.base import loras_of
from modules import script_callbacks, shared
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


class FakeInitialModel:
    """What `shared.sd_model` is before anything was loaded."""

    def __init__(self) -> None:
        self.cond_stage_model, self.chunk_length = None, 75


class SdModelData:
    """The current model, and the one to load next."""

    def __init__(self) -> None:
        self.sd_model: Any = FakeInitialModel()
        self.forge_loading_parameters: dict[str, Any] = {}
        self.forge_hash = ""

    def get_sd_model(self) -> Any:
        """The current model, or a placeholder."""
        return self.sd_model

    def set_sd_model(self, v: Any) -> None:
        """Make a model the current one."""
        self.sd_model = v


model_data = SdModelData()


@torch.inference_mode()
def forge_model_reload() -> tuple[Any, bool]:
    """Load the next model, unless it is there; returns the model and whether it is new."""
    wanted = str(model_data.forge_loading_parameters)
    if model_data.forge_hash == wanted:
        return model_data.sd_model, False
    model_data.sd_model = None
    memory_management.unload_all_models()
    info = model_data.forge_loading_parameters["checkpoint_info"]
    dynamic_args["forge_unet_storage_dtype"] = model_data.forge_loading_parameters.get("unet_storage_dtype")
    model = forge_loader(info.filename)
    model.sd_checkpoint_info, model.filename = info, info.filename
    model.sd_model_hash = info.calculate_shorthash()
    model_data.set_sd_model(model)
    script_callbacks.model_loaded_callback(model)
    model_data.forge_hash = wanted
    return model, True


def switch_checkpoint(info: CheckpointInfo) -> None:
    """Stand-in: load another checkpoint now; the next batch goes back to that of the settings."""
    from modules_forge import main_entry

    before = shared.opts.sd_model_checkpoint
    try:
        main_entry.checkpoint_change(info.short_title, save=False, refresh=False)
        main_entry.refresh_model_loading_parameters()
        forge_model_reload()
    finally:
        shared.opts.sd_model_checkpoint = before
        main_entry.refresh_model_loading_parameters()


def reload_model_weights(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> None:
    """Nothing, on Forge."""


def load_model(checkpoint_info: Any = None, already_loaded_state_dict: Any = None) -> None:
    """Nothing, on Forge."""


def unload_model_weights(sd_model: Any = None, info: Any = None) -> None:
    """Move every model away."""
    memory_management.unload_all_models()


def SkipWritingToConfig() -> Any:  # noqa: N802 - the host's own name
    """Nothing, on Forge."""
    return contextlib.nullcontext()


def apply_networks(model: Any, networks: list[Any]) -> None:
    """Put LoRAs on a clone of the unet, which every batch and pass begins with; they are merged when it is loaded."""
    targets = [[one.network_on_disk.filename, one.unet_multiplier, one.te_multiplier, False] for one in networks]
    if model.current_lora_hash == str(targets):
        return
    model.current_lora_hash = str(targets)
    unet = model.forge_objects_original.unet
    for network in networks:
        unet = unet.clone()
        patches = loras_of(network.name, unet)
        filename = network.network_on_disk.filename
        unet.add_patches(filename=filename, patches=patches, strength_patch=network.unet_multiplier)
    model.forge_objects.unet = unet
    model.forge_objects_after_applying_lora = model.forge_objects.shallow_copy()
