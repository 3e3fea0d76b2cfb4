"""Find a Chromium, or get one from Debian's packages where this process may install them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VARIABLE = "HYBRIDSTITCH_CHROMIUM"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@lru_cache(maxsize=1)
def find() -> str:
    """Path of the program, or ""."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    return _installed() or (_install() and _installed()) or ""


def _installed() -> str:
    return next((path for path in map(shutil.which, NAMES) if path), "")


def _install() -> bool:
    """Whether Debian's package could be installed; tried by root only."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=600)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode != 0:
            return False
    return True
