"""Moving parts of a model in and out of a small GPU; the stand-in never does."""

from __future__ import annotations

from typing import Any


def is_enabled(sd_model: Any) -> bool:
    """Whether --lowvram or --medvram is on."""
    return bool(sd_model.lowvram)
