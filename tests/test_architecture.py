"""The repository keeps the house's rules, and every rule bites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import architecture as house
from tests.architecture import RULES, Source, imports

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("lib_hybridstitch", "scripts", "benchmarks", "tests")
Rule = Callable[[Source], Iterator[str]]


def sources() -> list[Source]:
    """Every Python file of the repository."""
    paths = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in sorted(paths)]


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_the_repository_keeps_the_rule(rule: Rule) -> None:
    breaches = [breach for source in sources() for breach in rule(source)]
    assert not breaches, "\n" + "\n".join(breaches)


def test_the_whole_library_is_looked_at() -> None:
    layers = {source.layer for source in sources()}
    assert {"mmdit", "stitch", "demo", "settings", "errors", "log", "tests", "run"} <= layers


def test_every_layer_of_the_library_has_its_rule() -> None:
    layers = {source.layer for source in sources() if source.path.startswith("lib_hybridstitch/")}
    assert layers - {"__init__"} <= house.MAY_IMPORT.keys()


DEEP = "def f():\n    if True:\n        {}\n"

BAD: list[tuple[Rule, str, str, str]] = [
    (
        house.import_direction,
        "lib_hybridstitch/mmdit/a.py",
        "import lib_hybridstitch.stitch.plan",
        "may not import stitch",
    ),
    (
        house.import_direction,
        "lib_hybridstitch/mmdit/a.py",
        "from lib_hybridstitch import stitch",
        "may not import stitch",
    ),
    (house.import_direction, "lib_hybridstitch/mmdit/a.py", "from ..stitch import plan", "may not import stitch"),
    (house.import_direction, "lib_hybridstitch/mmdit/a.py", "from .. import stitch", "may not import stitch"),
    (
        house.import_direction,
        "lib_hybridstitch/stitch/a.py",
        DEEP.format("from lib_hybridstitch.hosts import base"),
        "may not import hosts",
    ),
    (
        house.import_direction,
        "lib_hybridstitch/stitch/a.py",
        "import importlib\nimportlib.import_module('lib_hybridstitch.webui.panel')",
        "may not import webui",
    ),
    (house.import_direction, "lib_hybridstitch/hosts/a.py", "import lib_hybridstitch.webui", "may not import webui"),
    (house.import_direction, "lib_hybridstitch/webui/a.py", "import lib_hybridstitch.demo", "may not import demo"),
    (house.import_direction, "scripts/a.py", "from lib_hybridstitch.demo import words", "may not import demo"),
    (house.import_direction, "lib_hybridstitch/demo/a.py", "import lib_hybridstitch.hosts", "may not import hosts"),
    (house.import_direction, "lib_hybridstitch/demo/a.py", "import benchmarks.race", "may not import benchmarks"),
    (house.import_direction, "lib_hybridstitch/log.py", "import lib_hybridstitch.settings", "may not import settings"),
    (house.libraries, "lib_hybridstitch/stitch/a.py", "import gradio as gr", "may not use this library"),
    (house.libraries, "lib_hybridstitch/stitch/a.py", DEEP.format("from modules import shared"), "may not use"),
    (house.libraries, "lib_hybridstitch/mmdit/a.py", "from backend.nn import mmditx", "may not use this library"),
    (house.import_direction, "run.py", "import lib_hybridstitch.demo.command", "may not import demo"),
    (house.libraries, "run.py", "import requests", "may not use this library"),
    (house.libraries, "lib_hybridstitch/settings.py", "import torch", "may not use this library"),
    (house.host_modules, "lib_hybridstitch/hosts/a.py", "from modules import shared", "at load time"),
    (house.host_modules, "lib_hybridstitch/hosts/a.py", "class A:\n    import backend.patcher", "at load time"),
    (house.state_and_exceptions, "run.py", "def f():\n    global x", "uses global"),
    (house.state_and_exceptions, "run.py", "try:\n    pass\nexcept:\n    pass", "catches everything"),
    (house.state_and_exceptions, "run.py", "try:\n    pass\nexcept BaseException:\n    pass", "catches everything"),
    (
        house.state_and_exceptions,
        "run.py",
        "try:\n    pass\nexcept (OSError, builtins.BaseException):\n    pass",
        "catches everything",
    ),
    (house.sizes, "tests/a.py", "x = 1\n" * 401, "has 401 lines"),
    (house.sizes, "tests/a.py", "class A:\n    def f(self):\n" + "        x = 1\n" * 60, "f is longer than 60 lines"),
    (house.documentation, "lib_hybridstitch/a.py", "x = 1", "the module has no docstring"),
    (house.documentation, "lib_hybridstitch/a.py", '"""A."""\ndef f(): ...', "f has no docstring"),
    (
        house.documentation,
        "lib_hybridstitch/a.py",
        '"""A."""\nclass A:\n    """A."""\n    def f(self): ...',
        "f has no",
    ),
    (house.annotations, "lib_hybridstitch/a.py", "def f(a, b: int) -> int: ...", "parameter a has no annotation"),
    (house.annotations, "lib_hybridstitch/a.py", "def f(*, a) -> int: ...", "parameter a has no annotation"),
    (house.annotations, "lib_hybridstitch/a.py", "def f(**rest) -> int: ...", "parameter rest has no annotation"),
    (house.annotations, "lib_hybridstitch/a.py", "class A:\n    def __init__(self): ...", "does not annotate what it"),
    (house.lazy_annotations, "benchmarks/a.py", '"""A."""\ndef f(): ...', "lacks `from __future__"),
    (house.script_dataclasses, "scripts/a.py", "@dataclass(frozen=True)\nclass A: ...", "A is a dataclass"),
    (house.script_dataclasses, "scripts/a.py", "@dataclasses.dataclass\nclass A: ...", "A is a dataclass"),
]


@pytest.mark.parametrize(("rule", "path", "text", "breach"), BAD)
def test_a_breach_is_found(rule: Rule, path: str, text: str, breach: str) -> None:
    found = list(rule(Source(path, text)))
    assert len(found) == 1
    assert breach in found[0]
    assert path in found[0]


def test_every_rule_is_shown_to_bite() -> None:
    assert {rule for rule, *_ in BAD} == set(RULES)


GOOD = [
    ("lib_hybridstitch/stitch/a.py", "import torch, math\nfrom lib_hybridstitch.mmdit.model import MMDiT"),
    ("lib_hybridstitch/stitch/a.py", "from lib_hybridstitch import __version__\nfrom . import plan"),
    ("lib_hybridstitch/hosts/a.py", "def _f():\n    from modules import shared"),
    ("lib_hybridstitch/hosts/a.py", "if TYPE_CHECKING:\n    from modules import shared"),
    ("lib_hybridstitch/webui/a.py", "import gradio\nfrom lib_hybridstitch.hosts import base"),
    ("lib_hybridstitch/demo/a.py", "import diffusers\nfrom lib_hybridstitch.webui import panel"),
    ("lib_hybridstitch/a.py", "class _A:\n    def f(self, x): ...\ndef _f(x): ...\ndef g() -> None:\n    '''G.'''\n"),
    ("scripts/a.py", "from modules import scripts\nfrom lib_hybridstitch.webui import panel"),
    ("benchmarks/a.py", "from lib_hybridstitch.demo import metrics"),
    ("lib_hybridstitch/a.py", "try:\n    pass\nexcept (OSError, Exception):\n    pass"),
]


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_what_is_allowed_is_not_reported(path: str, text: str) -> None:
    source = Source(path, f'"""A."""\nfrom __future__ import annotations\n{text}')
    assert [breach for rule in RULES for breach in rule(source)] == []


def test_imports_know_when_they_run() -> None:
    text = "import a\nfrom b import c\ndef f():\n    import d\nif TYPE_CHECKING:\n    import e\nclass G:\n    import h"
    found = {(item.name, item.deferred) for item in imports(Source("tests/a.py", text))}
    assert found == {("a", False), ("b.c", False), ("d", True), ("e", True), ("h", False)}
