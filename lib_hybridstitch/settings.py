"""The settings of a run: those common to all methods, declared here, and each method's own, declared in its file.

The panel, infotext, API schema, X/Y/Z axes and the command line read them from `specs()`, so that nothing is spelled a
second time. The order of `specs()` is the order of positional API values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from lib_hybridstitch.errors import SettingsError, quoted
from lib_hybridstitch.fields import FieldSpec, Scalar
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.method import Method
from lib_hybridstitch.plans.methods import METHODS
from lib_hybridstitch.plans.plan import parse
from lib_hybridstitch.plans.step_cache import StepCache

AUTO = "Auto"
CUSTOM = "Custom"
DEFAULT_PRESET = "Balanced"
CURRENT = "current"
PRESETS: tuple[str, ...] = tuple(dict.fromkeys(name for method in METHODS for name in method.presets))

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def _setting(default: Scalar, label: str, text: str, **spec: Any) -> Any:
    """A field common to all methods."""
    return field(default=default, metadata={"spec": FieldSpec(type(default), label, text, **spec)})


@dataclass(frozen=True)
class StitchSettings:
    """The settings of one run; always valid, always with actual values.

    `preset` is a label that is true: where a value of the method in force differs from the preset's, construction turns
    it into "Custom". It does not bring values along when the class is called directly; `from_dict`, `from_args` and
    `with_changes` do that. Construction raises SettingsError for a value that is not allowed.

    Args:
        values: every method's own settings by name; what is left out takes its default.
    """

    enabled: bool = _setting(
        False, "Enable HybridStitch", "Makes pictures faster. Off leaves the WebUI exactly as it is."
    )
    small_checkpoint: str = _setting(
        "",
        "Small checkpoint",
        "The fast model that helps out, SD3.5-Medium beside SD3.5-Large. Without one, Step cache is used.",
        axis=True,
        infotext="HybridStitch small checkpoint",
    )
    method: str = _setting(
        AUTO,
        "Method",
        "Auto is HybridStitch with a small checkpoint, and Step cache without one.",
        axis=True,
        choices=(AUTO, *(method.name for method in METHODS)),
        infotext="HybridStitch method",
    )
    preset: str = _setting(
        DEFAULT_PRESET,
        "Preset",
        "Quality stays closest to the large model; Fast is fastest. Paper is HybridStitch as published.",
        axis=True,
        choices=(*PRESETS, CUSTOM),
        infotext="HybridStitch preset",
    )
    target_speedup: float = _setting(
        0.0,
        "Target speed-up",
        "Picks the method's numbers for you: 2 is twice as fast. 0 leaves them as they are.",
        minimum=0,
        maximum=4,
        step=0.05,
        axis=True,
        infotext="HybridStitch target speedup",
    )
    plan: str = _setting(
        "",
        "Plan",
        "The steps in writing, such as 8L 4M30 X M30 2X S. Overrides the method; a pasted picture fills it in.",
        maximum=4096,
        axis=True,
        infotext="HybridStitch plan",
        advanced=True,
    )
    large_checkpoint: str = _setting(
        CURRENT,
        "Large checkpoint",
        "AUTOMATIC1111 only: SD3.5-Large, which it cannot run by itself. Elsewhere leave it at current.",
        minimum=1,
        infotext="HybridStitch large checkpoint",
        advanced=True,
    )
    hires: str = _setting(
        "both",
        "Hires passes",
        "Which passes of hires fix are made faster.",
        choices=("first", "second", "both"),
        infotext="HybridStitch hires",
        advanced=True,
    )
    kv_cache: str = _setting(
        "full",
        "KV cache",
        "What the masked part sees of the rest: fp8 halves its memory, off needs none and is least accurate.",
        choices=("full", "fp8", "off"),
        infotext="HybridStitch kv cache",
        advanced=True,
    )
    small_device: str = _setting(
        "keep",
        "Small model device",
        "Keep it on the GPU, park it in main memory between runs, or run it on a second device.",
        choices=("keep", "park", "second"),
        advanced=True,
    )
    values: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value, give it its own type, and keep the preset's label true."""
        for name, spec in common_specs().items():
            object.__setattr__(self, name, spec.check(name, getattr(self, name)))
        given = {**preset_values(DEFAULT_PRESET, self.method), **self.values}
        checked = {name: spec.check(name, given[name]) for name, spec in method_specs().items()}
        object.__setattr__(self, "values", MappingProxyType(checked))
        parse(self.plan)
        row = self._method.preset(self.preset)
        if self.preset not in self._method.presets or any(checked[name] != value for name, value in row.items()):
            object.__setattr__(self, "preset", CUSTOM)

    @property
    def _overridden(self) -> tuple[str, ...]:
        """The settings that a written plan takes the place of."""
        return ("method", "preset", "target_speedup", *method_specs())

    @property
    def _method(self) -> type[Method]:
        """The method in force: what Auto comes to, where it is Auto."""
        if self.method == AUTO:
            only_there = self.preset in HybridStitch.presets and self.preset not in StepCache.presets
            return HybridStitch if self.small_checkpoint or only_there else StepCache
        return _named(self.method)

    def chosen(self) -> Method:
        """The method in force with its settings."""
        own = {name: self.values[name] for name in self._method.specs()}
        return self._method(**own)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> StitchSettings:
        """Settings from names and values; what is missing takes the preset's value, then the default.

        Raises:
            SettingsError: for an unknown name, and for a value of the wrong type or out of range.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(f"The settings are {quoted(values)}, but must be a mapping of names to values.")
        for key in values:
            _check_known(key)
        common = {name: value for name, value in values.items() if name in common_specs()}
        own = {name: value for name, value in values.items() if name in method_specs()}
        labels = {
            name: str(spec.check(name, values.get(name, default)))
            for name, default in (("preset", DEFAULT_PRESET), ("method", AUTO))
            for spec in (common_specs()[name],)
        }
        given: dict[str, Any] = {**preset_values(**labels), **own}
        return cls(**common, values=given)  # type: ignore[arg-type]

    @classmethod
    def from_args(cls, args: Sequence[object]) -> StitchSettings:
        """Settings from script arguments: values in the order of `specs`, or one mapping in the first place.

        None stands for "not given". What follows a mapping is ignored, since the hosts fill missing arguments up with
        the panel's defaults.
        """
        if args and isinstance(args[0], Mapping):
            return cls.from_dict(args[0])
        if len(args) > len(specs()):
            raise SettingsError(f"{len(args)} values were given by position, but there are {len(specs())} settings.")
        return cls.from_dict({name: value for name, value in zip(specs(), args, strict=False) if value is not None})

    def with_changes(self, changes: Mapping[str, object]) -> StitchSettings:
        """These settings with some changed, checked together.

        A changed preset or method brings its values along. A changed setting that is not the method's brings the first
        method that has it. Either takes the place of a written plan, and of a target that would override it.
        """
        kept = self.to_dict()
        if not changes.keys().isdisjoint(self._overridden):
            kept["plan"] = ""
        if changes.get("preset", CUSTOM) != CUSTOM or changes.get("method", self.method) != self.method:
            kept = {name: value for name, value in kept.items() if name in common_specs()}
            if kept["preset"] == CUSTOM:
                del kept["preset"]
        strange = [name for name in changes if name in method_specs() and name not in self._method.specs()]
        if strange and "method" not in changes and self.method != AUTO:
            kept["method"] = next(method.name for method in METHODS if strange[0] in method.specs())
        made = type(self).from_dict({**kept, **changes})
        overridden = {"preset", *made.chosen().set_by_target()}
        if "target_speedup" in changes or overridden.isdisjoint(changes):
            return made
        return replace(made, target_speedup=0.0)

    def to_dict(self) -> dict[str, Scalar]:
        """Every setting by name, as a JSON scalar; `from_dict` restores it."""
        return {**{name: getattr(self, name) for name in common_specs()}, **self.values}

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of what `from_dict` accepts, apart from rules between two settings."""
        defaults = StitchSettings().to_dict()
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "HybridStitch settings",
            "type": "object",
            "additionalProperties": False,
            "properties": {name: spec.json_schema(defaults[name]) for name, spec in specs().items()},
        }

    def to_infotext(self) -> dict[str, str]:
        """What a picture records: small checkpoint, method and preset, and all that is not the method's default.

        A written plan stands in the place of the method. Quoting is the hosts' part.
        """
        always = ("small_checkpoint", "method", "preset")
        usual = {**StitchSettings().to_dict(), **self._method.preset(self.preset)}
        values = {**self.to_dict(), "method": self._method.name}
        texts = {}
        for name, spec in specs().items():
            value = values[name]
            silent = name in (self._overridden if self.plan else method_specs().keys() - self._method.specs().keys())
            if spec.infotext and value != "" and not silent and (name in always or value != usual[name]):
                whole = isinstance(value, float) and value.is_integer()
                texts[spec.infotext] = str(int(value) if whole else value)
        return texts

    @classmethod
    def from_infotext(cls, infotext: Mapping[str, object]) -> StitchSettings:
        """Settings from a picture's infotext, unquoted; keys that are not a setting's are ignored.

        Raises:
            SettingsError: beginning with the infotext key, for a value that is not allowed.
        """
        ours = {name: spec for name, spec in specs().items() if spec.infotext and spec.infotext in infotext}
        try:
            return cls.from_dict({name: _from_text(infotext[spec.infotext], spec.kind) for name, spec in ours.items()})
        except SettingsError as error:
            key = specs()[error.key].infotext if error.key in specs() else "HybridStitch"
            raise SettingsError(f"{key}: {error}", error.key) from error


def common_specs() -> dict[str, FieldSpec]:
    """The FieldSpec of every setting that all methods have."""
    return {item.name: item.metadata["spec"] for item in fields(StitchSettings) if item.metadata}


def method_specs() -> dict[str, FieldSpec]:
    """The FieldSpec of every setting that some method has; of one name the first method's description holds."""
    found: dict[str, FieldSpec] = {}
    for method in METHODS:
        for name, spec in method.specs().items():
            found.setdefault(name, replace(spec, infotext=f"HybridStitch {name.replace('_', ' ')}"))
    return found


def specs() -> dict[str, FieldSpec]:
    """The FieldSpec of every setting by name, in the order of positions."""
    return {**common_specs(), **method_specs()}


def methods_with(name: str) -> tuple[str, ...]:
    """The methods that have a setting."""
    return tuple(method.name for method in METHODS if name in method.specs())


def preset_values(preset: str, method: str) -> dict[str, Scalar]:
    """Every method's settings under a preset; of a setting that several have, the named method's value.

    Under Auto it is the first method's; the presets of the two that Auto comes to agree in what they share.
    """
    rows = [one.preset(preset if preset in one.presets else DEFAULT_PRESET) for one in reversed(METHODS)]
    own = [_named(method).preset(preset)] if method != AUTO else []
    return {name: value for row in [*rows, *own] for name, value in row.items()}


def _named(name: str) -> type[Method]:
    return next(method for method in METHODS if method.name == name)


def _check_known(key: object) -> None:
    """Raise SettingsError, with the closest name, when no setting is called `key`."""
    names = list(specs())
    if key in names:
        return
    name = key if isinstance(key, str) else quoted(key)
    close = difflib.get_close_matches(name[:64], names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the settings are {', '.join(names)}."
    raise SettingsError(f"There is no setting {quoted(key)}; {hint}", name)


def _from_text(text: object, kind: type) -> object:
    """The value an infotext entry spells, or `text` itself when it spells none, for the check to refuse."""
    if kind is str or not isinstance(text, str):
        return text
    if kind is bool:
        return {"True": True, "False": False}.get(text.strip(), text)
    return float(text) if _NUMBER.fullmatch(text.strip()) else text
