"""The script that the WebUI loads: its title and the names of its parameters are public."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from lib_hybridstitch.settings import specs
from tests import standins

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "hybridstitch.py"


def test_process_names_every_setting_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other extensions, such as Agent Scheduler, map arguments by these names."""
    host = standins.forge.install(monkeypatch, tmp_path)
    host.load_script(SCRIPT)
    script = host.script("HybridStitch")
    names = list(inspect.signature(script.process).parameters)
    assert names == ["p", *specs()]


@pytest.mark.parametrize("kind", ["txt2img", "img2img"])
def test_both_tabs_have_it_under_its_title(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    host = standins.a1111.install(monkeypatch, tmp_path)
    host.load_script(SCRIPT)
    assert host.script("HybridStitch", kind).title() == "HybridStitch"
    assert host.journal.swallowed == []


def test_it_is_thin_and_holds_no_dataclass() -> None:
    """The hosts' loader breaks dataclasses in script files; what is long belongs into the library."""
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    decorators = [decorator for node in classes for decorator in node.decorator_list]
    assert decorators == []
