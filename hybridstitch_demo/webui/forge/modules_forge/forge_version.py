"""Forge's own version; ersatzForge's has its name in it."""

from __future__ import annotations

version = "2.0.1v1.10.1"


def is_ersatz() -> bool:
    """Stand-in: whether it behaves like ersatzForge."""
    return "ersatz" in version
