"""The settings: what a value may be, and what methods and presets make of them."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.plans.methods import METHODS
from lib_hybridstitch.settings import StitchSettings, common_specs, method_specs, methods_with, preset_values
from tests.settings_tables import (
    BOOLS,
    BOUNDS,
    CHOICES,
    EVERY_PRESET,
    ORDER,
    OWN,
    POINTS,
    PRESETS_OF,
    SPECS,
    TEXTS,
    WRONG_TYPES,
)

METHOD_OF = {method.name: method for method in METHODS}


def refused(values: object, key: str) -> str:
    """The one sentence with which `values` are refused because of `key`."""
    with pytest.raises(SettingsError) as caught:
        StitchSettings.from_dict(values)  # type: ignore[arg-type]
    assert caught.value.key == key
    return str(caught.value)


def in_force(**values: object) -> str:
    """The method that settings come to."""
    return StitchSettings.from_dict(values).chosen().name


def test_settings_are_those_of_this_file_in_their_public_order() -> None:
    assert list(SPECS) == list(StitchSettings().to_dict()) == ORDER
    assert [*common_specs(), *method_specs()] == ORDER
    assert sorted([*BOUNDS, *CHOICES, *BOOLS, *TEXTS]) == sorted(ORDER)
    assert {name: type(value) for name, value in StitchSettings().to_dict().items()} == {
        name: spec.kind for name, spec in SPECS.items()
    }


# --- what a value may be


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_a_number_lies_within_its_bounds(name: str, bounds: tuple[float, float]) -> None:
    for bound, towards in zip(bounds, (-math.inf, math.inf), strict=True):
        assert StitchSettings.from_dict({name: bound}).to_dict()[name] == bound
        value = math.nextafter(bound, towards)
        sentence = refused({name: value}, name)
        assert sentence.startswith(f"{name} is {value!r}, but must be ") and sentence.endswith(".")
        assert all(re.search(rf"\b{limit}\b", sentence) for limit in bounds)


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
def test_a_choice_is_one_of_those_offered(name: str, choices: tuple[str, ...]) -> None:
    assert SPECS[name].choices == choices
    for value in (choices[0].upper(), ""):
        assert refused({name: value}, name) == f"{name} is {value!r}, but must be one of {', '.join(choices)}."


@pytest.mark.parametrize("name", ORDER)
def test_wrong_types_are_refused(name: str) -> None:
    wanted = {bool: "true or false.", float: "a ", str: "one of " if name in CHOICES else "a text"}
    for value in WRONG_TYPES[SPECS[name].kind]:
        assert refused({name: value}, name).startswith(f"{name} is {value!r}, but must be {wanted[SPECS[name].kind]}")


def test_texts_are_lines() -> None:
    assert StitchSettings(small_checkpoint="").small_checkpoint == ""
    assert StitchSettings(small_checkpoint='café, "v2" [0123abcdef]').small_checkpoint == 'café, "v2" [0123abcdef]'
    wanted = "a text that is not empty, of one line and at most 1024 characters"
    assert refused({"large_checkpoint": ""}, "large_checkpoint") == f"large_checkpoint is '', but must be {wanted}."
    for name in TEXTS:
        assert "of one line" in refused({name: "a\nb"}, name)
        assert len(refused({name: "9" * 100_000}, name)) < 150


def test_numbers_take_the_type_of_their_field() -> None:
    made = StitchSettings.from_dict({"mask_ratio": 1, "computed_share": -0.0}).values
    assert (made["mask_ratio"], type(made["mask_ratio"]), str(made["computed_share"])) == (1.0, float, "0.0")


@pytest.mark.parametrize("name", POINTS)
def test_points_of_the_run_are_fractions_or_whole_steps(name: str) -> None:
    for value in (0, 0.999, 1, 8, 8.0):
        assert StitchSettings.from_dict({name: value}).values[name] == value
    for value in (1.001, 8.5):
        assert refused({name: value}, name) == (
            f"{name} is {value}, but must be a fraction of the run from 0 to below 1 or a whole number of steps from 1 "
            "to 10000."
        )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("mask_ration", "did you mean mask_ratio?"),
        ("qqq", "the settings are enabled, "),
        (7, "the settings are enabled, "),
        ("x" * 100_000, "the settings are enabled, "),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one(key: object, hint: str) -> None:
    sentence = refused({key: 1}, str(key))
    assert sentence.startswith("There is no setting ") and hint in sentence and len(sentence) < 400


@pytest.mark.parametrize("values", [None, [], "enabled", 3])
def test_what_is_no_mapping_is_refused(values: object) -> None:
    assert refused(values, "") == f"The settings are {values!r}, but must be a mapping of names to values."


def test_a_plan_is_parsed_before_it_is_taken() -> None:
    assert StitchSettings(plan="8L 2M30 X S / hires 4L X L").plan == "8L 2M30 X S / hires 4L X L"
    assert refused({"plan": "8L Q"}, "plan").startswith("plan has 'Q', but must be steps such as ")


def test_direct_construction_is_checked_and_nothing_changes_afterwards() -> None:
    with pytest.raises(SettingsError, match=r"^kv_cache is 'on', but must be one of"):
        StitchSettings(kv_cache="on")
    with pytest.raises(SettingsError, match=r"^mask_ratio is -1, but"):
        dataclasses.replace(StitchSettings(), values={"mask_ratio": -1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        StitchSettings().plan = "8L"  # type: ignore[misc]
    with pytest.raises(TypeError):
        StitchSettings().values["mask_ratio"] = 1.0  # type: ignore[index]


# --- methods


@pytest.mark.parametrize("name", METHOD_OF)
def test_each_method_has_its_settings_and_presets(name: str) -> None:
    assert list(METHOD_OF[name].specs()) == OWN[name]
    assert list(METHOD_OF[name].presets) == PRESETS_OF[name]
    assert [own for own in method_specs() if name in methods_with(own)] == OWN[name]
    assert type(StitchSettings(method=name).chosen()) is METHOD_OF[name]


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({}, "Step cache"),
        ({"small_checkpoint": "m"}, "HybridStitch"),
        ({"small_checkpoint": "m", "switch_step": 4, "mask_ratio": 0.3}, "HybridStitch"),
        ({"switch_step": 4, "mask_ratio": 0.3}, "Step cache"),
        ({"small_checkpoint": "m", "method": "Step cache"}, "Step cache"),
        ({"preset": "Paper"}, "HybridStitch"),
        ({"preset": "Fast"}, "Step cache"),
    ],
)
def test_auto_is_hybridstitch_where_a_small_checkpoint_is_chosen(values: dict[str, object], method: str) -> None:
    assert in_force(**values) == method


def test_the_chosen_method_has_its_own_values() -> None:
    made = StitchSettings.from_dict({"small_checkpoint": "m", "switch_step": 4, "mask_ratio": 0.4}).chosen()
    assert (made.switch_step, made.mask_ratio) == (4, 0.4)  # type: ignore[attr-defined]
    assert StitchSettings(method="T-Stitch").chosen().switch_step == 0.4  # type: ignore[attr-defined]
    assert StitchSettings.from_dict({"method": "T-Stitch"}).chosen() == METHOD_OF["T-Stitch"]()


# --- presets


@pytest.mark.parametrize(("method", "label"), EVERY_PRESET)
def test_a_preset_brings_its_values_and_any_other_value_makes_it_custom(method: str, label: str) -> None:
    made = StitchSettings.from_dict({"method": method, "preset": label, "kv_cache": "off"})
    assert (made.preset, made.kv_cache) == (label, "off")
    assert {name: made.values[name] for name in OWN[method]} == METHOD_OF[method].preset(label)
    for name in OWN[method]:
        same = {"method": method, "preset": label, name: made.values[name]}
        assert StitchSettings.from_dict(same).preset == label
        other = "change" if name == "score" else 0.123
        changed = StitchSettings.from_dict({**same, name: other})
        assert changed.to_dict() == {**made.to_dict(), "kv_cache": "full", "preset": "Custom", name: other}


def test_defaults_are_the_balanced_preset_of_the_two_usual_methods() -> None:
    assert StitchSettings() == StitchSettings.from_dict({}) == StitchSettings.from_dict({"preset": "Balanced"})
    for method in ("Auto", "HybridStitch", "Step cache"):
        assert StitchSettings(method=method).preset == "Balanced"


def test_what_auto_comes_to_agrees_in_what_is_shared() -> None:
    """So that a small checkpoint may be chosen or cleared without a preset losing its name."""
    for label in PRESETS_OF["Step cache"]:
        shared = set(OWN["HybridStitch"]) & set(OWN["Step cache"])
        rows = [METHOD_OF[name].preset(label) for name in ("HybridStitch", "Step cache")]
        assert {name: rows[0][name] for name in shared} == {name: rows[1][name] for name in shared}
        for small in ("", "m"):
            assert StitchSettings.from_dict({"preset": label, "small_checkpoint": small}).preset == label


@pytest.mark.parametrize("method", [name for name, presets in PRESETS_OF.items() if not presets])
def test_a_preset_that_the_method_does_not_have_is_custom(method: str) -> None:
    made = StitchSettings.from_dict({"method": method, "preset": "Fast"})
    assert made.preset == "Custom"
    assert {name: made.values[name] for name in OWN[method]} == METHOD_OF[method].preset("")
    assert preset_values("Fast", method) == made.values


# --- changes, as a plot makes them


def test_a_changed_preset_or_method_brings_its_values_but_explicit_changes_win() -> None:
    base = StitchSettings.from_dict({"mask_ratio": 0.5, "small_checkpoint": "m", "hires": "first"})
    kept = {"small_checkpoint": "m", "hires": "first"}
    assert base.with_changes({"preset": "Fast"}) == StitchSettings.from_dict({"preset": "Fast", **kept})
    assert base.with_changes({"preset": "Fast", "mask_ratio": 0.4}).values["mask_ratio"] == 0.4
    assert base.with_changes({"method": "RAS"}) == StitchSettings.from_dict({"method": "RAS", **kept})
    assert base.with_changes({"computed_share": 0.9}).values["mask_ratio"] == 0.5


@pytest.mark.parametrize(("name", "method"), [("mask_ratio", "HybridStitch"), ("computed_share", "Step cache")])
def test_a_changed_setting_brings_a_method_that_has_it(name: str, method: str) -> None:
    made = StitchSettings.from_dict({"method": "Step cache"}).with_changes({name: 0.4})
    assert (made.method, made.values[name]) == (method, 0.4)


@pytest.mark.parametrize(
    "changes", [{"switch_step": 4}, {"preset": "Fast"}, {"method": "RAS"}, {"target_speedup": 1.5}, {"score": "change"}]
)
def test_a_change_takes_the_place_of_a_written_plan(changes: dict[str, object]) -> None:
    base = StitchSettings(small_checkpoint="m", plan="8L X S")
    assert base.with_changes(changes).plan == ""
    assert base.with_changes({**changes, "plan": "4L"}).plan == "4L"
    assert base.with_changes({"kv_cache": "off"}).plan == "8L X S"


@pytest.mark.parametrize(
    ("changes", "target"),
    [({"switch_step": 4}, 0), ({"preset": "Fast"}, 0), ({"mask_ratio": 0.2}, 2), ({"method": "RAS"}, 2)],
)
def test_a_change_that_a_target_would_override_ends_it(changes: dict[str, object], target: float) -> None:
    base = StitchSettings(small_checkpoint="m", target_speedup=2.0)
    assert base.with_changes(changes).target_speedup == target
    assert base.with_changes({**changes, "target_speedup": 1.5}).target_speedup == 1.5
