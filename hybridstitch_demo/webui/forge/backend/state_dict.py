"""Tensors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def load_state_dict(model: Any, sd: dict[str, Any], ignore_errors: Sequence[str] = (), **rest: Any) -> None:
    """Load what fits by name; what is missing or left over is only printed."""
    model.load_state_dict(sd, strict=False)


def state_dict_has(sd: dict[str, Any], prefix: str) -> bool:
    """Whether any name begins so."""
    return any(name.startswith(prefix) for name in sd)


def try_filter_state_dict(sd: dict[str, Any], prefix_list: Sequence[str], new_prefix: str = "") -> dict[str, Any]:
    """Take the tensors of the first prefix that occurs OUT of `sd`."""
    for prefix in prefix_list:
        if state_dict_has(sd, prefix):
            names = [name for name in sd if name.startswith(prefix)]
            return {new_prefix + name[len(prefix) :]: sd.pop(name) for name in names}
    return {}
