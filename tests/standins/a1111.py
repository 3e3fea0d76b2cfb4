"""AUTOMATIC1111 1.10.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.networks import SD3
from tests.standins.common import CHECKPOINTS, Checkpoint, Host
from tests.standins.common import install as install_family


def install(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    large: str = "sd3_medium",
    checkpoints: Mapping[str, Checkpoint] | None = None,
    fake_gradio: bool = True,
) -> Host:
    """Install it. Its own SD3 network knows neither q/k norms nor second attentions.

    Args:
        large: the current checkpoint.
        checkpoints: file name → file, network or architecture; SD3-medium, SD3.5-Large and -Medium by default.
        fake_gradio: False needs the real gradio.
    """
    files = {"sd3_medium": SD3, **CHECKPOINTS} if checkpoints is None else checkpoints
    return install_family(monkeypatch, tmp_path, "a1111", files, large, fake_gradio)
