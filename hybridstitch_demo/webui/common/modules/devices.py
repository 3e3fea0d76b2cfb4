"""Devices and dtypes; the stand-in has a CPU."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

cpu = torch.device("cpu")
device = cpu
fp8 = False
dtype = dtype_vae = dtype_unet = dtype_inference = torch.float32
unet_needs_upcast = False
checks_nans = True
"""A1111 refuses a latent of NaN; Forge does not look."""


class NansException(Exception):  # noqa: N818 - the host's own name
    """A latent or picture is NaN."""


def get_optimal_device_name() -> str:
    """Name of the device that models compute on."""
    return "cpu"


def get_optimal_device() -> torch.device:
    """The device that models compute on."""
    return torch.device(get_optimal_device_name())


def autocast(disable: bool = False) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision; none on a CPU."""
    return contextlib.nullcontext()


def without_autocast(disable: bool = False) -> contextlib.AbstractContextManager[Any]:
    """No mixed precision."""
    return contextlib.nullcontext()


def torch_gc() -> None:
    """Give cached memory back."""


def test_for_nans(x: Tensor, where: str) -> None:
    """Raise when the first number is NaN, on A1111."""
    if checks_nans and bool(torch.isnan(x[(0,) * x.dim()])):
        raise NansException(f"A tensor with NaNs was produced in {where}.")


test_for_nans.__test__ = False  # type: ignore[attr-defined]  # not a test
