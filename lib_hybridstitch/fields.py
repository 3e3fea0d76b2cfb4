"""What every door needs to know about one setting: type, range, words, and how a value is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lib_hybridstitch.errors import SettingsError, quoted

Scalar = bool | int | float | str

LONGEST_TEXT = 1024
"""Characters of a text, such as a checkpoint's name."""

_NOT_IN_TEXTS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff"
"""Control characters, line breaks and halves of characters, as a class of a regular expression."""

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class FieldSpec:
    """What every door needs to know about one setting besides its default.

    Args:
        kind: type of the value: bool, int, float or str.
        label: text beside the control; never renamed, since the hosts store it in ui-config.json.
        help: its effect, in a short sentence.
        infotext: key under which pictures record it, or "" when it does not change the picture.
        minimum: lowest value of a number; least length of a text.
        maximum: highest value of a number; greatest length of a text, where it is not `LONGEST_TEXT`.
        step: distance between two positions of a slider.
        choices: the values a text may have; empty when any text will do.
        advanced: whether it belongs into the Advanced fold.
        axis: whether it is an X/Y/Z axis.
        whole_from_one: whether only whole numbers are allowed from 1 on (a point of the run).
    """

    kind: type
    label: str
    help: str
    infotext: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    advanced: bool = False
    axis: bool = False
    whole_from_one: bool = False

    @property
    def longest(self) -> int:
        """Most characters of a text."""
        return int(self.maximum or LONGEST_TEXT)

    def allowed(self) -> str:
        """The allowed values in words, to follow "must be"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            text = "a text that is not empty," if self.minimum else "a text"
            return f"{text} of one line and at most {self.longest} characters"
        low, high = f"{self.minimum:g}", f"{self.maximum:g}"
        if self.whole_from_one:
            return f"a fraction of the run from {low} to below 1 or a whole number of steps from 1 to {high}"
        return f"a {'whole ' if self.kind is int else ''}number from {low} to {high}"

    def check(self, name: str, value: object) -> Scalar:
        """Return `value` as this setting's own type; raise SettingsError, naming `name`, when it is not allowed."""
        if not self._admits(value):
            raise SettingsError(f"{name} is {quoted(value)}, but must be {self.allowed()}.", name)
        if self.kind is float:
            return float(value) + 0.0  # type: ignore[arg-type]  # the sum turns -0.0 into 0.0
        return int(value) if self.kind is int else value  # type: ignore[call-overload, return-value]

    def _admits(self, value: object) -> bool:
        """Whether `value` is of the right type and in range; text is never read as a number, nor a bool as one."""
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind is str:
            return isinstance(value, str) and (value in self.choices if self.choices else self._admits_text(value))
        if not isinstance(value, (int, float)) or self.minimum is None or self.maximum is None:
            return False
        if not self.minimum <= value <= self.maximum:  # also true of NaN
            return False
        whole = self.kind is int or (self.whole_from_one and value >= 1)
        return not whole or value == int(value)

    def _admits_text(self, value: str) -> bool:
        """Whether a text without choices can be a name that every door can carry."""
        fits = (self.minimum or 0) <= len(value) <= self.longest
        return fits and not re.search(f"[{_NOT_IN_TEXTS}]", value)

    def json_schema(self, default: Scalar) -> dict[str, Any]:
        """This setting as a JSON Schema property that admits what `check` admits."""
        schema: dict[str, Any] = {"title": self.label, "type": _JSON_TYPES[self.kind], "description": self.help}
        schema["default"] = default
        if self.kind is str and not self.choices:
            schema |= {"minLength": self.minimum} if self.minimum else {}
            schema |= {"maxLength": self.longest, "pattern": f"^[^{_NOT_IN_TEXTS}]*$"}
        elif self.minimum is not None:
            schema |= {"minimum": self.minimum, "maximum": self.maximum}
        if self.whole_from_one:
            schema["anyOf"] = [{"exclusiveMaximum": 1}, {"multipleOf": 1}]
        if self.choices:
            schema["enum"] = list(self.choices)
        return schema
