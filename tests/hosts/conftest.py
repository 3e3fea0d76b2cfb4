"""The extension inside each stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import standins
from tests.standins import Host, Result

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "hybridstitch.py"
HOSTS = ("a1111", "forge", "ersatz")
SMALL = "sd3.5_medium"
A1111_SMALL = "sd3_small"
STEPS = 8


class Web:
    """A stand-in with the extension loaded.

    Args:
        host: the stand-in.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.script: Any = host.load_script(SCRIPT)
        self.small = SMALL

    @property
    def extension(self) -> Any:
        """This load of the extension."""
        return self.host.module("modules.script_loading").loaded_scripts[str(SCRIPT)].EXTENSION

    def off(self, **request: Any) -> Result:
        """Generate with the accordion unticked."""
        return self.host.generate(**{"steps": STEPS, **request})

    def on(self, stitch: dict[str, Any] | None = None, **request: Any) -> Result:
        """Generate with it ticked; the preset is Paper, which uses everything, unless another is given."""
        wanted = {"enabled": True, "small_checkpoint": self.small, "preset": "Paper", **(stitch or {})}
        return self.host.generate(alwayson={"HybridStitch": [wanted]}, **{"steps": STEPS, **request})


def make(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, **options: Any) -> Host:
    """Install a stand-in by name."""
    if name == "a1111":
        return standins.a1111.install(monkeypatch, folder, **options)
    return standins.forge.install(monkeypatch, folder, like=name, **options)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Host]:
    """Install a stand-in without the extension: name and options → host."""
    return lambda name, **options: make(monkeypatch, tmp_path, name, **options)


@pytest.fixture(params=HOSTS)
def web(request: pytest.FixtureRequest, install: Callable[..., Host]) -> Web:
    """The extension in every stand-in."""
    return Web(install(request.param))


@pytest.fixture(params=("forge", "ersatz"))
def forge(request: pytest.FixtureRequest, install: Callable[..., Host]) -> Web:
    """The extension in the Forge family."""
    return Web(install(request.param))


@pytest.fixture
def a1111(install: Callable[..., Host]) -> Web:
    """The extension in A1111."""
    return Web(install("a1111"))
