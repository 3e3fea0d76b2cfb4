"""The panel under the two versions of gradio that WebUIs pin, each in an environment of its own, made when missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from run import ROOT
from tests.pages import environment

GRADIO = {"3.41.2": "a1111", "4.40.0": "forge"}
"""The versions of gradio, and the WebUI that has each."""


def probe(version: str) -> dict[str, Any]:
    """Build and use the panel under that gradio; an environment that cannot be made is an error."""
    done = subprocess.run(
        [str(environment(GRADIO[version]).python), str(ROOT / "tests/webui/panel_probe.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="session", params=GRADIO)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What panel_probe.py saw, under each gradio."""
    found = probe(request.param)
    assert found["gradio"] == request.param
    return found


@pytest.fixture
def host_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., types.ModuleType]:
    """Puts a module of the WebUI's in place for one test, with the given content."""

    def put(name: str, **content: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
        package, _, leaf = name.rpartition(".")
        if package:
            parent = sys.modules[package] if package in sys.modules else put(package)
            monkeypatch.setattr(parent, leaf, module, raising=False)
        return module

    return put
