"""What A1111 does at its own points of a generation; a host has this in `processing`."""

from __future__ import annotations

from typing import Any

import torch
from modules import devices, scripts, sd_models, shared
from torch import Tensor


def load_model(p: Any) -> None:
    """Load the checkpoint of the settings, unless it is there."""
    sd_models.reload_model_weights()


def grad_mode() -> Any:
    """A generation runs without gradients."""
    return torch.no_grad()


def begin_batch(p: Any) -> None:
    """Back to the main checkpoint, which a refiner may have swapped."""
    sd_models.reload_model_weights()


def after_networks(p: Any) -> None:
    """Nothing."""


def wants_uncond(cfg: float) -> bool:
    """Both halves are always computed."""
    return True


def hires_cfg(p: Any) -> float:
    """One guidance scale for both passes."""
    return float(p.cfg_scale)


def begin_pass(p: Any) -> None:
    """Nothing."""


def begin_hires_pass(p: Any, told: dict[str, Any]) -> None:
    """Announce the second pass."""
    if p.scripts is not None:
        p.scripts.before_hr(p)
    p.announce(**told)


def switch_model(info: Any) -> None:
    """Load another checkpoint for the second pass."""
    sd_models.reload_model_weights(info=info)


def check(samples: Tensor) -> None:
    """Refuse NaN."""
    if not shared.cmd_opts.disable_nan_check:
        devices.test_for_nans(samples, "unet")


def image_args(picture: Any, index: int) -> Any:
    """What hooks on a picture are handed."""
    return scripts.PostprocessImageArgs(picture)
