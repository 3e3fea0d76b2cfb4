"""The settings of a stitched run: one frozen dataclass that every door is generated from.

The fields of `StitchSettings` carry their label, help, infotext key and range as metadata. The panel, the infotext, the
API schema, the X/Y/Z axes and the command line read them from there, so that nothing is spelled a second time. The
order of the fields is the order of positional API values: new fields go to the end.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import Any

from lib_hybridstitch.errors import SettingsError, quoted
from lib_hybridstitch.fields import FieldSpec, Scalar

CUSTOM = "Custom"
DEFAULT_PRESET = "Balanced"
MAX_STEPS = 150  # the longest run the hosts' own step sliders allow

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

_GOVERNED = (
    "method", "switch_step", "handoff_step", "mask_ratio", "mask_threshold", "score", "background", "extrapolate",
    "small_scope", "refresh_every", "adaptive", "full_share", "hold_guidance",
)  # fmt: skip
_PRESET_ROWS: dict[str, tuple[Scalar, ...]] = {
    "Paper": ("HybridStitch", 0.29, 0.57, 0.3, 0.0, "disagreement", "small", 0.0, "all", 0, False, 0.0, 0.0),
    "Quality": ("HybridStitch", 0.0, 0.0, 0.0, 0.0, "change", "reuse", 0.9, "all", 0, False, 0.6, 0.0),
    "Balanced": ("HybridStitch", 0.0, 0.0, 0.0, 0.0, "change", "reuse", 0.9, "all", 0, False, 0.57, 0.5),
    "Fast": ("HybridStitch", 0.0, 0.0, 0.0, 0.0, "change", "reuse", 0.9, "all", 0, False, 0.43, 0.5),
}
PRESETS: Mapping[str, Mapping[str, Scalar]] = MappingProxyType(
    {name: MappingProxyType(dict(zip(_GOVERNED, row, strict=True))) for name, row in _PRESET_ROWS.items()}
)
"""Every governed setting's value under each named preset."""


def _setting(default: Scalar, label: str, text: str, span: Sequence[Any] = (None, None, None), **spec: Any) -> Any:
    """A dataclass field whose metadata holds its FieldSpec; `span` is minimum, maximum and step of a number."""
    minimum, maximum, step = span
    made = FieldSpec(type(default), label, text, minimum=minimum, maximum=maximum, step=step, **spec)
    return field(default=default, metadata={"spec": made})


def _governed(name: str, text: str, advanced: bool = True, **spec: Any) -> Any:
    """A field that presets set: an axis, recorded, labelled by its name, with the default preset's value as default."""
    label, default = name.replace("_", " "), PRESETS[DEFAULT_PRESET][name]
    shared: dict[str, Any] = {"infotext": f"HybridStitch {label}", "governed": True, "advanced": advanced, "axis": True}
    return _setting(default, label.capitalize(), text, **shared, **spec)


@dataclass(frozen=True)
class StitchSettings:
    """The settings of one run; always valid, always with actual values.

    `preset` is a label that is true: where a governed value differs from the named preset's, construction turns it
    into "Custom". It does not bring values along when the class is called directly; `from_dict`, `from_args` and
    `with_changes` do that. Construction raises SettingsError for a value that is not allowed.
    """

    enabled: bool = _setting(
        False,
        "Enable HybridStitch",
        "Stitches a small model into the run to make it faster. Off leaves the host exactly as it is.",
    )
    small_checkpoint: str = _setting(
        "",
        "Small checkpoint",
        "The small model, as the host's list names it; empty is none. SD3.5-Medium is recommended for SD3.5-Large.",
        axis=True,
        infotext="HybridStitch small checkpoint",
    )
    large_checkpoint: str = _setting(
        "current",
        "Large checkpoint",
        "The large model's name; keep it at current, the host's own, unless the host cannot run SD3.5 by itself.",
        span=(1, None, None),
        infotext="HybridStitch large checkpoint",
        advanced=True,
    )
    preset: str = _setting(
        DEFAULT_PRESET,
        "Preset",
        "Sets the method and its numbers at once, from Quality, closest to the large model, to Fast; Paper is the "
        "method as published. Balanced is recommended.",
        axis=True,
        choices=(*PRESETS, CUSTOM),
        infotext="HybridStitch preset",
    )
    method: str = _governed(
        "method",
        "How the models share the run: HybridStitch, or one of its peers T-Stitch (small, then large), SRDiffusion "
        "(large, then small) and RAS (large only, region by region). HybridStitch is recommended.",
        choices=("HybridStitch", "T-Stitch", "SRDiffusion", "RAS"),
    )
    switch_step: float = _governed(
        "switch_step",
        "Where the first stage ends: below 1 a fraction of the run, from 1 on whole steps, 0 at once. Later is slower "
        "and closer to the large model, but for T-Stitch, which begins with the small one; 0.2 is recommended.",
        advanced=False,
        span=(0, MAX_STEPS, 0.01),
        whole_from_one=True,
    )
    handoff_step: float = _governed(
        "handoff_step",
        "Where the small model takes over alone: below 1 a fraction of the run, from 1 on whole steps, 0 never. "
        "Earlier is faster and loses detail; 0 is recommended with a reused background.",
        advanced=False,
        span=(0, MAX_STEPS, 0.01),
        whole_from_one=True,
    )
    mask_ratio: float = _governed(
        "mask_ratio",
        "The share of tokens the large model computes in a hybrid step. Higher is slower and closer to it; 0.3 is as "
        "published, 0 is recommended with a reused background.",
        advanced=False,
        span=(0, 1, 0.01),
    )
    mask_threshold: float = _governed(
        "mask_threshold",
        "Masks the tokens that score above it, at most the mask ratio of them; 0 is off. Higher masks less and is "
        "faster; off is recommended, as it keeps every step the same size.",
        span=(0, 100, 0.01),
    )
    score: str = _governed(
        "score",
        "What makes a token complex: the models' disagreement, its change between evaluations, or the detail around "
        "it. Disagreement costs a call of the small model; change is recommended with a reused background.",
        choices=("disagreement", "change", "detail"),
    )
    background: str = _governed(
        "background",
        "Who supplies the tokens outside the mask: the small model, or the large model's last velocity. Reuse is "
        "faster and is recommended together with a frequent refresh.",
        choices=("small", "reuse"),
    )
    extrapolate: float = _governed(
        "extrapolate",
        "How far a reused velocity follows the trend of the last two: 0 holds the last, 1 follows fully. Higher is "
        "closer to the large model until it overshoots; 0.9 is recommended.",
        span=(0, 1, 0.05),
    )
    small_scope: str = _governed(
        "small_scope",
        "Which tokens the small model computes in a hybrid step: all, or those outside the mask. Outside is faster "
        "and less accurate; all is recommended.",
        choices=("all", "outside"),
    )
    refresh_every: int = _governed(
        "refresh_every",
        "Hybrid evaluations from one full pass of the large model to the next; 0 goes by Full share instead. Higher is "
        "faster and drifts further; 0 is recommended.",
        span=(0, 50, 1),
    )
    kv_cache: str = _setting(
        "full",
        "KV cache",
        "How the large model's keys and values are kept: in full precision, in fp8, or not at all. Full needs the most "
        "memory and is the most accurate; it is recommended where it fits.",
        choices=("full", "fp8", "off"),
        infotext="HybridStitch kv cache",
        advanced=True,
    )
    hires: str = _setting(
        "both",
        "Hires passes",
        "Which passes of hires fix are stitched. Both is the fastest and is recommended.",
        choices=("first", "second", "both"),
        infotext="HybridStitch hires",
        advanced=True,
    )
    show_mask: bool = _setting(
        True,
        "Show mask",
        "Records the mask of every step, to be shown over the picture and by /hybridstitch/v1/last-run. The picture "
        "itself stays as it is; on is recommended.",
        advanced=True,
    )
    small_device: str = _setting(
        "keep",
        "Small model device",
        "Where the small model stays: on the device, parked in main memory while it is not needed, or on a second "
        "device. Park saves device memory and is slower; keep is recommended.",
        choices=("keep", "park", "second"),
        advanced=True,
    )
    adaptive: bool = _governed(
        "adaptive",
        "SRDiffusion only: switches when the large model's output settles. Faster on simple pictures, but not known "
        "beforehand; off is recommended.",
    )

    full_share: float = _governed(
        "full_share",
        "The share of the steps that the large model computes in full, placed where reuse would miss most; it counts "
        "while Refresh every is 0. Higher is slower and closer to it; 0.4 to 0.6 is recommended with a reused "
        "background.",
        span=(0, 1, 0.01),
    )
    target_speedup: float = _setting(
        0.0,
        "Target speedup",
        "How many times as fast it shall be; switch, handoff, mask and full share follow from it, as the plan that "
        "should stay closest to the large model. Higher is faster; 2 is recommended, 0 leaves them as they are.",
        span=(0, 4, 0.05),
        axis=True,
        infotext="HybridStitch target speedup",
    )
    hold_guidance: float = _governed(
        "hold_guidance",
        "Where full passes stop computing the empty prompt and hold the difference it last made: below 1 a fraction of "
        "the run, from 1 on whole steps, 0 never; it counts with a reused background and a mask ratio of 0. Earlier is "
        "faster; 0.5 is recommended.",
        span=(0, MAX_STEPS, 0.01),
        whole_from_one=True,
    )

    def __post_init__(self) -> None:
        """Check every value, give it its own type, and keep the preset's label true."""
        for name, spec in specs().items():
            object.__setattr__(self, name, spec.check(name, getattr(self, name)))
        same_unit = (self.switch_step < 1) == (self.handoff_step < 1)
        if self.method in ("HybridStitch", "RAS") and same_unit and 0 < self.handoff_step <= self.switch_step:
            raise SettingsError(
                f"handoff_step is {self.handoff_step:g}, but must be greater than switch_step, which is "
                f"{self.switch_step:g}, or 0 to keep the hybrid stage to the end.",
                "handoff_step",
            )
        if any(getattr(self, name) != value for name, value in PRESETS.get(self.preset, {}).items()):
            object.__setattr__(self, "preset", CUSTOM)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> StitchSettings:
        """Settings from names and values; what is missing takes the preset's value, then the default.

        Raises SettingsError for an unknown name and for a value of the wrong type or out of range.
        """
        if not isinstance(values, Mapping):
            raise SettingsError(f"The settings are {quoted(values)}, but must be a mapping of names to values.")
        for key in values:
            _check_known(key)
        label = specs()["preset"].check("preset", values.get("preset", DEFAULT_PRESET))
        return cls(**{**PRESETS.get(str(label), {}), **values})  # type: ignore[arg-type]

    @classmethod
    def from_args(cls, args: Sequence[object]) -> StitchSettings:
        """Settings from script arguments: values in the order of the fields, or one mapping in the first place.

        What follows a mapping is ignored, since the hosts fill missing arguments up with the panel's defaults.
        """
        if args and isinstance(args[0], Mapping):
            return cls.from_dict(args[0])
        if len(args) > len(specs()):
            raise SettingsError(f"{len(args)} values were given by position, but there are {len(specs())} settings.")
        return cls.from_dict(dict(zip(specs(), args, strict=False)))

    def with_changes(self, changes: Mapping[str, object]) -> StitchSettings:
        """These settings with some changed, checked together; a changed preset brings its values along."""
        kept = self.to_dict()
        if changes.get("preset", CUSTOM) != CUSTOM:
            kept = {name: value for name, value in kept.items() if not specs()[name].governed}
        return type(self).from_dict({**kept, **changes})

    def to_dict(self) -> dict[str, Scalar]:
        """Every setting by name, as a JSON scalar; `from_dict` restores it."""
        return {name: getattr(self, name) for name in specs()}

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
        """What a picture must record to be made again: small checkpoint, preset, and all that is not the default.

        An empty small checkpoint is left out: the hosts cannot read an empty value back. Quoting is the hosts' part.
        """
        defaults, always = StitchSettings(), ("small_checkpoint", "preset")
        texts = {}
        for name, spec in specs().items():
            value = getattr(self, name)
            if spec.infotext and value != "" and (name in always or value != getattr(defaults, name)):
                whole = isinstance(value, float) and value.is_integer()
                texts[spec.infotext] = str(int(value) if whole else value)
        return texts

    @classmethod
    def from_infotext(cls, infotext: Mapping[str, object]) -> StitchSettings:
        """Settings from a picture's infotext, unquoted; keys that are not a setting's are ignored.

        Raises SettingsError, whose message begins with the infotext key, for a value that is not allowed.
        """
        ours = {name: spec for name, spec in specs().items() if spec.infotext and spec.infotext in infotext}
        try:
            return cls.from_dict({name: _from_text(infotext[spec.infotext], spec.kind) for name, spec in ours.items()})
        except SettingsError as error:
            raise SettingsError(f"{specs()[error.key].infotext}: {error}", error.key) from error


def specs() -> dict[str, FieldSpec]:
    """The FieldSpec of every setting by name, in the order of the fields."""
    return {item.name: item.metadata["spec"] for item in fields(StitchSettings)}


def step_index(value: float, steps: int) -> int:
    """The step, in 0..`steps`, that a valid `switch_step` or `handoff_step` stands for in a run of `steps` steps.

    A fraction is rounded half up as it is written in decimal: 0.29 of 50 steps is 15. A `handoff_step` of 0 means
    "never"; that is for the caller to ask first, here it is step 0 like any other 0.
    """
    if value >= 1:
        return min(int(value), steps)
    return int((Decimal(str(value)) * steps).to_integral_value(ROUND_HALF_UP))


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
