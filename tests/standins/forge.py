"""Forge and ersatzForge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.standins.common import CHECKPOINTS, Checkpoint, Host
from tests.standins.common import install as install_family


def install(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    like: str = "forge",
    large: str = "sd3.5_large",
    checkpoints: Mapping[str, Checkpoint] | None = None,
    fake_gradio: bool = True,
) -> Host:
    """Install it.

    Args:
        like: "forge", or "ersatz" for ersatzForge: blocks that work in place, one hook on hires, no lagging step.
        large: the current checkpoint.
        checkpoints: file name → file, network or architecture; SD3.5-Large and -Medium by default.
        fake_gradio: False needs the real gradio.
    """
    files = CHECKPOINTS if checkpoints is None else checkpoints
    return install_family(monkeypatch, tmp_path, like, files, large, fake_gradio)
