"""What the launcher knows."""

from __future__ import annotations


def git_tag() -> str:
    """The version as the footer shows it."""
    return "v1.10.1"
