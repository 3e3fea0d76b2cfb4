"""No name becomes markup: how the extension makes HTML, in Python and in the page's own scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run import ROOT
from tests import standins
from tests.properties import tries
from tests.standins import Host

WEBUI = sorted((ROOT / "lib_hybridstitch" / "webui").glob("*.py"))
PAGE = sorted((ROOT / "hybridstitch_demo" / "page").glob("*.py"))
SCRIPTS = sorted([*(ROOT / "javascript").glob("*.js"), *(ROOT / "hybridstitch_demo" / "page").glob("*.js")])
TAG = re.compile(r"<[a-zA-Z/!]")
HTML_BY_TEXT = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|setHTML"
    r"|\beval\b|new Function|javascript:|set(?:Timeout|Interval)\(\s*[\"'`]|location\s*=|\.on[a-z]+\s*=|\"on[a-z]+\""
)
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "</p><iframe src=javascript:alert(1)>",
    "&lt;b&gt;",
    "<!--",
    "]]>",
    "\u003cscript\u003e",
]


class Fragments(HTMLParser):
    """Tags, attributes and texts of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.append("!--")


# --- the rule, read from the source


def pieces_of_markup(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    """Every value that is put into a text with a tag in it: f-strings, `+`, `%` and `.format`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and _has_tag(node):
            yield from ((node.lineno, part.value) for part in node.values if isinstance(part, ast.FormattedValue))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)) and _has_tag(node.left):
            yield node.lineno, node.right
        elif isinstance(node, ast.Call) and _is_format(node.func) and _has_tag(node.func):
            yield from ((node.lineno, argument) for argument in (*node.args, *(key.value for key in node.keywords)))


def _is_format(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "format"


def _has_tag(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Constant) and isinstance(part.value, str) and TAG.search(part.value)
        for part in ast.walk(node)
    )


def is_harmless(value: ast.expr) -> bool:
    """Escaped, or chosen between constants."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func) == "html.escape"
    if isinstance(value, ast.IfExp):
        return is_harmless(value.body) and is_harmless(value.orelse)
    return isinstance(value, ast.Constant)


OWN = {"data": "panel.py", "shown": "build.py", "name": "build.py"}
"""Names that hold what has been escaped already, and the file in which they do; the tests below look into them."""


@pytest.mark.parametrize("path", [*WEBUI, *PAGE], ids=lambda path: path.name)
def test_what_is_put_into_markup_is_escaped_there(path: Path) -> None:
    for line, value in pieces_of_markup(ast.parse(path.read_text(encoding="utf-8"))):
        own = isinstance(value, ast.Name) and OWN.get(value.id) == path.name
        ours = path.name == "controls.py" and isinstance(value, ast.Name) and value.id in ("drawings", "grounds")
        assert is_harmless(value) or own or ours, f"{path.name}:{line} puts {ast.unparse(value)} into markup unescaped"


def test_the_rule_finds_what_is_not_escaped() -> None:
    bad = ['f"<b>{name}</b>"', '"<b>" + name', '"<b>%s" % name', '"<b>{}".format(name)', 'f"<b>{html.unescape(name)}"']
    good = ['f"<b>{html.escape(name)}</b>"', 'f"{name} < 3"', "f\"<b {'a' if x else 'b'}>\""]
    for code in bad:
        assert not all(is_harmless(value) for _, value in pieces_of_markup(ast.parse(code))), code
    for code in good:
        assert all(is_harmless(value) for _, value in pieces_of_markup(ast.parse(code))), code


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_elements_and_never_markup(path: Path) -> None:
    """Texts go into textContent, attributes and `append`, which make no markup of them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [
        f"{path.name}:{number} {line.strip()}" for number, line in enumerate(lines, 1) if HTML_BY_TEXT.search(line)
    ]
    assert found == []


def test_the_rule_for_scripts_finds_what_is_forbidden() -> None:
    for code in ("a.innerHTML = b", "element('p', {innerHTML: b})", "eval(x)", "a.onclick = f", 'setTimeout("f()", 1)'):
        assert HTML_BY_TEXT.search(code), code


# --- the functions themselves


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """A WebUI in whose list a checkpoint has markup for a name."""
    made = standins.forge.install(monkeypatch, tmp_path)
    made.load_script(ROOT / "scripts" / "hybridstitch.py")
    return made


def test_the_panel_carries_any_text_as_text(host: Host, long_run: bool) -> None:
    """What the page's scripts are handed, the problem of a host and what Release says: the same elements every time."""
    panel = host.module("modules.script_loading").loaded_scripts[str(ROOT / "scripts/hybridstitch.py")].panel
    plain = Fragments(panel._live(lambda name: f"id_{name}", False))

    @tries(20, long_run)
    @given(text=st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30)))
    def run(text: str) -> None:
        made = Fragments(panel._live(lambda name: f"{text}{name}", False))
        assert made.tags == plain.tags and [key for key, _ in made.attributes] == [key for key, _ in plain.attributes]
        assert not made.texts

    run()


def test_what_the_extension_says_is_shown_as_text(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's problem above the panel, and what Release says."""
    import gradio as gr

    script = host.module("modules.script_loading").loaded_scripts[str(ROOT / "scripts/hybridstitch.py")]
    shown: list[Any] = []
    presses: list[Any] = []

    class Html(gr.HTML):  # type: ignore[name-defined, misc]
        def __init__(self, value: Any = None, **more: Any) -> None:
            super().__init__(value, **more)
            shown.append(value)

    class Button(gr.Button):  # type: ignore[name-defined, misc]
        def click(self, fn: Any, **more: Any) -> None:
            presses.append(fn)

    monkeypatch.setattr(script.panel.gr, "HTML", Html)
    monkeypatch.setattr(script.panel.gr, "Button", Button)
    for text in HOSTILE:
        monkeypatch.setattr(script.EXTENSION.host, "problem", lambda text=text: text, raising=False)
        shown.clear()
        script.panel.build(script.EXTENSION.host, False, str, script.EXTENSION.settings, lambda text=text: text)
        # the last button but one: after it comes the hidden one that the page's scripts press
        for made in (Fragments(shown[0]), Fragments(presses[-2]())):
            assert made.tags == ["p"] and "".join(made.texts) == text
