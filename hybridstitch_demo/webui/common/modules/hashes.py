"""Hashes of files, computed once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from modules import shared

cache: dict[str, str] = {}


def sha256(filename: str, title: str, use_addnet_hash: bool = False) -> Any:
    """The digest of a file in hex; None under --no-hashing."""
    if getattr(shared.cmd_opts, "no_hashing", False):
        return None
    if title not in cache:
        cache[title] = hashlib.sha256(Path(filename).read_bytes()).hexdigest()
    return cache[title]
