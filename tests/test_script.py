"""The script that the WebUI loads: its title and the names of its parameters are public."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib_hybridstitch.settings import StitchSettings, specs
from tests import standins

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "hybridstitch.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script of the txt2img tab, as the WebUI has loaded it."""
    host = standins.forge.install(monkeypatch, tmp_path)
    host.load_script(SCRIPT)
    return host.script("HybridStitch")


class P(SimpleNamespace):
    """As much of a processing object as `process` looks at; each is itself alone."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def comment(self, sentence: str) -> None:
        """What is shown below the picture."""


def processed(script: Any, *args: Any, **named: Any) -> dict[str, str]:
    """What `process` records of the settings that it was called with."""
    p = P(extra_generation_params={})
    script.process(p, *args, **named)
    script.postprocess(p, None)
    return dict(p.extra_generation_params)


def test_process_names_every_setting_in_order(script: Any) -> None:
    """Other extensions, such as Agent Scheduler, map arguments by these names."""
    assert list(inspect.signature(script.process).parameters) == ["p", *specs()]
    assert inspect.getfullargspec(script.process).args == ["self", "p", *specs()]


def test_process_takes_its_settings_by_position_and_by_name(script: Any) -> None:
    values = {"enabled": True, "small_checkpoint": "m", "switch_step": 4.0, "mask_ratio": 0.25}
    made = StitchSettings.from_dict(values)
    every = made.to_dict()
    positions = list(every.values())
    assert processed(script, *positions) == made.to_infotext()
    assert processed(script, **every) == processed(script, **values) == made.to_infotext()
    assert processed(script, *positions[:3], **dict(list(every.items())[3:])) == made.to_infotext()
    assert processed(script, values, *positions[1:]) == made.to_infotext()
    assert processed(script, **dict.fromkeys(specs())) == {}
    assert "There is no setting 'mask'" in processed(script, enabled=True, mask=0.3)["HybridStitch stopped"]


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
