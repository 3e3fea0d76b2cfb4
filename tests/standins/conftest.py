"""A stand-in for each test, with the probe script in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import standins
from tests.standins import Host
from tests.standins.probe import SCRIPT, Install


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """`install(name, **options)`: name is "a1111", "forge" or "ersatz"."""

    def make(name: str, **options: Any) -> Host:
        path = tmp_path / "probe" / "scripts" / "probe.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPT)
        family = standins.a1111.install if name == "a1111" else standins.forge.install
        host = family(monkeypatch, tmp_path, **options, **({"like": name} if name != "a1111" else {}))
        host.load_script(path)
        return host

    return make
