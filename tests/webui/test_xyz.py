"""The axes, driven as the X/Y/Z plot script drives them: confirm once, then apply to a shallow copy per cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from types import SimpleNamespace
from typing import Any

import pytest

from lib_hybridstitch.errors import CheckpointError, SettingsError
from lib_hybridstitch.settings import StitchSettings, specs
from lib_hybridstitch.webui import xyz


class AxisOption:
    """The plot script's own, as far as it goes."""

    def __init__(self, label: str, type: Any, apply: Any, confirm: Any = None, cost: float = 0.0, choices: Any = None):
        self.label, self.type, self.apply = label, type, apply
        self.confirm, self.cost, self.choices = confirm, cost, choices


class Host:
    """A list of one checkpoint."""

    def checkpoint_titles(self) -> list[str]:
        return ["medium.safetensors"]

    def find_checkpoint(self, name: str) -> None:
        if name not in self.checkpoint_titles():
            raise CheckpointError(f"The list has no {name}.")


@pytest.fixture
def plot(host_module: Callable[..., Any]) -> SimpleNamespace:
    """The loaded plot script beside another one, registered twice as after Reload UI."""
    module = SimpleNamespace(AxisOption=AxisOption, axis_options=[AxisOption("Nothing", str, None)])
    other = SimpleNamespace()
    data = [
        SimpleNamespace(path="scripts/loopback.py", module=other),
        SimpleNamespace(path="xyz_grid.py", module=module),
    ]
    host_module("modules.scripts", scripts_data=data)
    for _ in range(2):
        xyz.register(Host())
    return module


def axis(plot: SimpleNamespace, label: str) -> AxisOption:
    (found,) = (option for option in plot.axis_options if option.label == f"[HybridStitch] {label}")
    return found


def cell(plot: SimpleNamespace, p: Any, **wanted: str) -> Any:
    """Let axes, named by label, act on a copy of `p`, each value as typed into the plot's text box."""
    made = copy(p)
    for label, text in wanted.items():
        option = axis(plot, label.replace("_", " "))
        option.apply(made, option.type(text), [option.type(text)])
    return made


def changed(plot: SimpleNamespace, settings: StitchSettings | None = None, **wanted: str) -> StitchSettings:
    """Settings as a cell changes them."""
    return (settings or StitchSettings()).with_changes(xyz.changes(cell(plot, SimpleNamespace(), **wanted)))


def test_every_axis_is_there_once_behind_the_scripts_own(plot: SimpleNamespace) -> None:
    expected = [f"[HybridStitch] {spec.label}" for spec in specs().values() if spec.axis]
    assert [option.label for option in plot.axis_options] == ["Nothing", "[HybridStitch] Enabled", *expected]


def test_cells_do_not_see_each_other(plot: SimpleNamespace) -> None:
    p = SimpleNamespace(seed=1)
    first = cell(plot, p, Mask_ratio="0.2", Switch_step="4")
    second = cell(plot, first, Mask_ratio="0.5")
    assert xyz.changes(first) == {"enabled": True, "mask_ratio": 0.2, "switch_step": 4}
    assert xyz.changes(second) == {"enabled": True, "mask_ratio": 0.5, "switch_step": 4}
    assert xyz.changes(p) == {} and vars(p) == {"seed": 1}
    json.dumps(vars(second))


def test_any_axis_enables_and_the_enabled_axis_decides(plot: SimpleNamespace) -> None:
    assert changed(plot, Preset="Fast").enabled
    assert not changed(plot, Enabled="False", Mask_ratio="0.2").enabled


def test_a_preset_axis_brings_its_values_and_other_axes_change_them(plot: SimpleNamespace) -> None:
    made = changed(plot, StitchSettings(small_checkpoint="m"), Preset="Paper", Mask_ratio="0.5")
    assert (made.preset, made.values["mask_ratio"], made.values["computed_share"]) == ("Custom", 0.5, 1.0)


def test_an_axis_of_another_method_brings_that_method(plot: SimpleNamespace) -> None:
    made = changed(plot, StitchSettings(method="Step cache", small_checkpoint="m"), Switch_step="4")
    assert (made.method, made.values["switch_step"]) == ("HybridStitch", 4)


def test_an_axis_is_not_overridden_by_the_panels_plan_or_target(plot: SimpleNamespace) -> None:
    panel = StitchSettings(small_checkpoint="m", plan="8L X", target_speedup=2.0)
    made = changed(plot, panel, Switch_step="4")
    assert (made.plan, made.target_speedup) == ("", 0)
    assert changed(plot, panel, Plan="4L S").plan == "4L S"


@pytest.mark.parametrize(
    ("label", "texts"),
    [
        ("Mask ratio", ["0", "0.3", "1"]),
        ("Switch step", ["0.2", "8"]),
        ("Method", ["T-Stitch", "Step cache"]),
        ("Plan", ["8L 4M30 X M30 2X S", "8L X / hires 4L X L", ""]),
        ("Small checkpoint", ["medium.safetensors", ""]),
    ],
)
def test_good_values_are_confirmed(plot: SimpleNamespace, label: str, texts: list[str]) -> None:
    option = axis(plot, label)
    option.confirm(SimpleNamespace(), [option.type(text) for text in texts])
    assert changed(plot, **{label.replace(" ", "_"): texts[0]}).enabled


@pytest.mark.parametrize(
    ("label", "text", "error", "says"),
    [
        ("Mask ratio", "1.5", SettingsError, "mask_ratio is 1.5, but must be a number from 0 to 1."),
        ("Switch step", "8.5", SettingsError, "whole number of steps"),
        ("Method", "Fastest", SettingsError, "method is 'Fastest', but must be one of Auto, HybridStitch"),
        ("Enabled", "maybe", SettingsError, "enabled is 'maybe', but must be true or false."),
        ("Plan", "8L M", SettingsError, "plan has 'M', but must be steps"),
        ("Small checkpoint", "gone", CheckpointError, "The list has no gone."),
    ],
)
def test_bad_values_stop_the_plot_before_it_begins(
    plot: SimpleNamespace, label: str, text: str, error: type[Exception], says: str
) -> None:
    option = axis(plot, label)
    with pytest.raises(error) as refusal:
        option.confirm(SimpleNamespace(), [option.type(text)])
    assert says in str(refusal.value)


def test_choices_fill_the_plots_text_box(plot: SimpleNamespace) -> None:
    assert axis(plot, "Method").choices() == list(specs()["method"].choices)
    assert axis(plot, "Enabled").choices() == ["True", "False"]
    assert axis(plot, "Small checkpoint").choices() == ["medium.safetensors"]
    assert axis(plot, "Mask ratio").choices is axis(plot, "Plan").choices is None


def test_only_the_axis_that_loads_is_costly(plot: SimpleNamespace) -> None:
    costly = [option.label for option in plot.axis_options if option.cost > 0]
    assert costly == ["[HybridStitch] Small checkpoint"]
