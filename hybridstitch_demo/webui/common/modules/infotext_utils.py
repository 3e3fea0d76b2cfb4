"""Parameters under a picture: written, parsed, and given back to the controls."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

RE_PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
RE_IMAGESIZE = re.compile(r"^(\d+)x(\d+)$")
paste_fields: dict[str, dict[str, Any]] = {}


class PasteField(tuple[Any, Any]):
    """A control and the infotext label, or function of the parsed infotext, that fills it."""

    def __new__(cls, component: Any, target: str | Callable[..., Any], *, api: str | None = None) -> PasteField:
        return super().__new__(cls, (component, target))

    def __init__(self, component: Any, target: str | Callable[..., Any], *, api: str | None = None) -> None:
        self.api, self.component = api, component
        self.label = target if isinstance(target, str) else None
        self.function = target if callable(target) else None


def quote(text: Any) -> Any:
    """Put quotes around what the parser would split."""
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,\n:]", str(text)) else text


def unquote(text: str) -> str:
    """Take them off; what is quoted by nobody's rules stays as it is, as on the hosts."""
    if len(text) < 2 or not text[0] == text[-1] == '"':
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def parse_generation_parameters(x: str, skip_fields: list[str] | None = None) -> dict[str, str]:
    """Parse an infotext; keys with a dot are cut and values like 4x4 are split, as on the hosts."""
    *lines, last = x.strip().split("\n")
    if len(RE_PARAM.findall(last)) < 3:
        lines, last = [*lines, last], ""
    text = "\n".join(lines)
    prompt, _, negative = text.partition("Negative prompt:")
    result = {"Prompt": prompt.strip(), "Negative prompt": negative.strip()}
    for key, raw in RE_PARAM.findall(last):
        value = unquote(raw)
        size = RE_IMAGESIZE.match(value)
        result.update({f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value})
    return result


def values_for(fields: list[Any], params: dict[str, Any]) -> list[Any]:
    """What pasting gives each control; None leaves it as it is. Strings are cast to the type of the control's value.

    As on the hosts, what cannot be cast leaves the control as it is.
    """
    return [_value(component, target, params) for component, target in fields]


def _value(component: Any, target: Any, params: dict[str, Any]) -> Any:
    value = target(params) if callable(target) else params.get(target)
    if value is None or callable(target):
        return value
    kind = type(component.value)
    if kind is bool and value == "False":
        return False
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        return None
