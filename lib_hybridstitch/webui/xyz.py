"""Axes for the X/Y/Z plot script.

The plot works on shallow copies of one processing object, so an axis puts a new dict of plain values on the copy it is
given; `changes` reads it when the run begins. Any axis enables HybridStitch for the cell, as a grid of plain pictures
would be no use to anybody; the axis "Enabled" decides where it is among the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from lib_hybridstitch.fields import FieldSpec, Scalar
from lib_hybridstitch.plans.plan import parse
from lib_hybridstitch.settings import specs

if TYPE_CHECKING:
    from lib_hybridstitch.hosts.base import Host

ATTRIBUTE = "hybridstitch_xyz"
PREFIX = "[HybridStitch] "
ENABLED = "Enabled"
CHECKPOINT = "small_checkpoint"
_LOADING = 0.8  # the plot makes costly axes its outer loops: between a VAE's 0.7 and a whole checkpoint's 1.0
_TICKS = {"True": True, "False": False}


def labels() -> dict[str, str]:
    """The label of every axis by the setting it changes."""
    axes = {name: PREFIX + spec.label for name, spec in specs().items() if spec.axis}
    return {"enabled": PREFIX + ENABLED, **axes}


def texts() -> tuple[str, ...]:
    """Every text of the axes that a language may translate."""
    return tuple(labels().values())


def register(host: Host) -> None:
    """Add the axes to every X/Y/Z plot script that is loaded, in place of those of an earlier load."""
    from modules import scripts

    for data in scripts.scripts_data:
        if PurePath(data.path).name == "xyz_grid.py":
            known = [option for option in data.module.axis_options if not option.label.startswith(PREFIX)]
            data.module.axis_options[:] = [*known, *_axes(data.module.AxisOption, host)]


def changes(p: object) -> dict[str, Scalar]:
    """What the axes of a plot ask for in this run, for `StitchSettings.with_changes`; empty without a plot."""
    asked = getattr(p, ATTRIBUTE, None)
    return {"enabled": True, **asked} if asked else {}


def _axes(make: Callable[..., Any], host: Host) -> list[Any]:
    return [_axis(make, name, label, host) for name, label in labels().items()]


def _axis(make: Callable[..., Any], name: str, label: str, host: Host) -> Any:
    spec = specs()[name]
    kind = spec.kind if spec.kind in (int, float) else str
    more: dict[str, Any] = {}
    if spec.kind is bool:
        more["choices"] = lambda: list(_TICKS)
    elif spec.choices:
        more["choices"] = lambda: list(spec.choices)
    elif name == CHECKPOINT:
        more = {"choices": host.checkpoint_titles, "cost": _LOADING}
    return make(label, kind, _apply(name, spec), confirm=_confirm(name, spec, host), **more)


def _apply(name: str, spec: FieldSpec) -> Callable[[Any, Any, Sequence[Any]], None]:
    def apply(p: Any, value: Any, _values: Sequence[Any]) -> None:
        setattr(p, ATTRIBUTE, {**getattr(p, ATTRIBUTE, {}), name: spec.check(name, _value(spec, value))})

    return apply


def _confirm(name: str, spec: FieldSpec, host: Host) -> Callable[[Any, Sequence[Any]], None]:
    """Refuses a value before the plot begins, with the sentence that says what is allowed."""

    def confirm(_p: Any, values: Sequence[Any]) -> None:
        for value in values:
            checked = str(spec.check(name, _value(spec, value)))
            if name == "plan":
                parse(checked)
            elif name == CHECKPOINT and checked:
                host.find_checkpoint(checked)

    return confirm


def _value(spec: FieldSpec, value: Any) -> Any:
    """The plot hands a tick over as text."""
    return _TICKS.get(str(value).strip().capitalize(), value) if spec.kind is bool else value
