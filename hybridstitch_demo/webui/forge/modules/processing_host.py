"""What Forge does at its own points of a generation; a host has this in `processing`."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, scripts, sd_models, shared
from modules_forge import forge_version, main_entry
from torch import Tensor


def load_model(p: Any) -> None:
    """Load the checkpoint of the settings, unless it is there."""
    main_entry.refresh_model_loading_parameters()
    sd_models.forge_model_reload()


def grad_mode() -> Any:
    """A generation makes inference tensors."""
    return torch.inference_mode()


def begin_batch(p: Any) -> None:
    """Back to the main checkpoint, with nothing patched."""
    sd_models.forge_model_reload()
    model = shared.sd_model
    model.forge_objects = model.forge_objects_original.shallow_copy()


def after_networks(p: Any) -> None:
    """Begin with the LoRAs on."""
    model = shared.sd_model
    model.forge_objects = model.forge_objects_after_applying_lora.shallow_copy()


def wants_uncond(cfg: float) -> bool:
    """Without guidance there are no negative prompts."""
    return cfg != 1


def hires_cfg(p: Any) -> float:
    """The second pass has a guidance scale of its own."""
    return float(p.hr_cfg)


def begin_pass(p: Any) -> None:
    """Drop every patch but LoRAs."""
    after_networks(p)


def begin_hires_pass(p: Any, told: dict[str, Any]) -> None:
    """Announce the second pass: on Forge twice, dropping the patches in between; on ersatzForge once."""
    if not forge_version.is_ersatz() and p.scripts is not None:
        p.scripts.before_hr(p)
        p.announce(**told)
    after_networks(p)
    if forge_version.is_ersatz() and p.scripts is not None:
        p.scripts.before_hr(p)
    p.announce(**told)


def switch_model(info: Any) -> None:
    """Load another checkpoint for the second pass."""
    sd_models.switch_checkpoint(info)


def check(samples: Tensor) -> None:
    """Nobody looks for NaN."""
    devices.test_for_nans(samples, "unet")


def image_args(picture: Any, index: int) -> Any:
    """What hooks on a picture are handed."""
    return scripts.PostprocessImageArgs(picture, index)
