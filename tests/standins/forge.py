"""Forge and ersatzForge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.standins.common import CHECKPOINTS, Checkpoint, Host
from tests.standins.common import install as install_family

ERSATZ_VERSION = "f2.ersatz"


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
    assert like in ("forge", "ersatz"), f"there is no stand-in like {like}"
    files = CHECKPOINTS if checkpoints is None else checkpoints
    host = install_family(monkeypatch, tmp_path, like, files, large, fake_gradio)
    host.module("modules.devices").checks_nans = False
    components = host.module("modules.ui_components")

    def accordion(value: Any = None, **kwargs: Any) -> Any:
        """Forge's is a function."""
        return components.InputAccordionImpl(value, **kwargs)

    components.InputAccordion = accordion
    if like == "ersatz":
        host.module("modules_forge.forge_version").version = ERSATZ_VERSION
    return host
