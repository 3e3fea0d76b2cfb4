"""Files and attributes."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file


def load_torch_file(ckpt: str, safe_load: bool = False, device: Any = None) -> dict[str, Any]:
    """All tensors of a file."""
    if not str(ckpt).endswith(".safetensors"):
        raise ValueError(f"the stand-in reads safetensors only, not {ckpt}")
    return load_file(ckpt)


def set_attr_raw(obj: Any, attr: str, value: Any) -> None:
    """Set a dotted attribute."""
    *path, last = attr.split(".")
    setattr(get_attr(obj, ".".join(path)) if path else obj, last, value)


def get_attr(obj: Any, attr: str) -> Any:
    """Get a dotted attribute."""
    for name in attr.split("."):
        obj = getattr(obj, name)
    return obj


def tensor2parameter(x: Any) -> Any:
    """A frozen parameter."""
    return x if isinstance(x, torch.nn.Parameter) else torch.nn.Parameter(x, requires_grad=False)
