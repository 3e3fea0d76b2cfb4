"""What the launcher knows."""

from __future__ import annotations


def git_tag() -> str:
    """The version as the footer shows it."""
    from modules_forge import forge_version

    return f"f{forge_version.version}-v1.10.1"
