"""The settings: ranges, presets, and every door's way in and out."""

from __future__ import annotations

import dataclasses
import math
import re
import typing

import pytest

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.settings import PRESETS, StitchSettings
from tests.settings_tables import BOOLS, BOUNDS, CHOICES, GOVERNED, ORDER, SPECS, TEXTS, WRONG_TYPES


def refused(values: object, key: str) -> str:
    """The one sentence with which `values` are refused because of `key`."""
    with pytest.raises(SettingsError) as caught:
        StitchSettings.from_dict(values)  # type: ignore[arg-type]
    assert caught.value.key == key
    return str(caught.value)


def beyond(name: str, bound: float, towards: float) -> float:
    """The closest value of the setting's type on the far side of `bound`."""
    if SPECS[name].kind is int:
        return bound + math.copysign(1, towards)
    return math.nextafter(bound, towards)


def test_fields_are_those_of_this_file_in_their_public_order() -> None:
    assert [item.name for item in dataclasses.fields(StitchSettings)] == ORDER == list(SPECS)
    assert sorted([*BOUNDS, *CHOICES, *BOOLS, *TEXTS]) == sorted(ORDER)
    assert typing.get_type_hints(StitchSettings) == {name: spec.kind for name, spec in SPECS.items()}


# --- what a value may be


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_lowest_and_highest_number(name: str, bounds: tuple[float, float]) -> None:
    for bound in bounds:
        settings = StitchSettings.from_dict({"method": "T-Stitch", name: bound})
        assert getattr(settings, name) == bound
        assert type(getattr(settings, name)) is SPECS[name].kind


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
@pytest.mark.parametrize("side", [0, 1])
def test_number_just_outside(name: str, bounds: tuple[float, float], side: int) -> None:
    value = beyond(name, bounds[side], (-math.inf, math.inf)[side])
    sentence = refused({name: value}, name)
    assert sentence.startswith(f"{name} is {value!r}, but must be ")
    for bound in bounds:
        assert re.search(rf"\b{bound}\b", sentence)
    assert sentence.endswith(".")


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
def test_choices(name: str, choices: tuple[str, ...]) -> None:
    assert SPECS[name].choices == choices
    for choice in choices:
        assert getattr(StitchSettings.from_dict({name: choice}), name) == choice
    for value in (choices[0].upper(), ""):
        assert refused({name: value}, name) == f"{name} is {value!r}, but must be one of {', '.join(choices)}."


@pytest.mark.parametrize("name", [*BOOLS, *TEXTS])
def test_bools_and_texts(name: str) -> None:
    for value in (True, False) if name in BOOLS else ('sd3/café, "v2": final.safetensors [0123abcdef]', "x"):
        assert getattr(StitchSettings.from_dict({name: value}), name) is value


@pytest.mark.parametrize("name", ORDER)
def test_wrong_types(name: str) -> None:
    wanted = {
        bool: "true or false.",
        int: "a whole number from ",
        float: "a ",
        str: "one of " if name in CHOICES else "a text",
    }
    for value in WRONG_TYPES[SPECS[name].kind]:
        assert refused({name: value}, name).startswith(f"{name} is {value!r}, but must be {wanted[SPECS[name].kind]}")


def test_only_the_small_checkpoint_may_be_empty() -> None:
    assert StitchSettings(small_checkpoint="").small_checkpoint == ""
    sentence = refused({"large_checkpoint": ""}, "large_checkpoint")
    wanted = "a text that is not empty, of one line and at most 1024 characters"
    assert sentence == f"large_checkpoint is '', but must be {wanted}."


def test_numbers_take_the_type_of_their_field() -> None:
    settings = StitchSettings.from_dict({"mask_ratio": 1, "refresh_every": 2.0, "extrapolate": -0.0})
    assert (settings.mask_ratio, type(settings.mask_ratio)) == (1.0, float)
    assert (settings.refresh_every, type(settings.refresh_every)) == (2, int)
    assert str(settings.extrapolate) == "0.0"


@pytest.mark.parametrize("name", ["switch_step", "handoff_step"])
def test_points_of_the_run_are_fractions_or_whole_steps(name: str) -> None:
    for value in (0, 0.999, 1, 8, 8.0):
        assert getattr(StitchSettings.from_dict({"method": "T-Stitch", name: value}), name) == value
    for value in (1.001, 8.5, 149.5):
        assert refused({name: value}, name) == (
            f"{name} is {value}, but must be a fraction of the run from 0 to below 1 or a whole number of steps from 1 "
            "to 150."
        )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("mask_ration", "did you mean mask_ratio?"),
        ("qqq", "the settings are enabled, "),
        (7, "the settings are enabled, "),
    ],
)
def test_unknown_key(key: object, hint: str) -> None:
    assert refused({key: 1}, str(key)).startswith(f"There is no setting {key!r}; {hint}")


def test_messages_stay_short_for_long_input() -> None:
    assert len(refused({"x" * 100_000: 1}, "x" * 100_000)) < 400
    assert len(refused({"mask_ratio": "9" * 100_000}, "mask_ratio")) < 120


@pytest.mark.parametrize("values", [None, [], "enabled", 3])
def test_what_is_no_mapping(values: object) -> None:
    assert refused(values, "") == f"The settings are {values!r}, but must be a mapping of names to values."


# --- rules between two settings


@pytest.mark.parametrize("method", ["HybridStitch", "RAS"])
@pytest.mark.parametrize(("switch", "handoff"), [(0.3, 0.2), (0.3, 0.3), (8, 5), (8, 8)])
def test_handoff_must_follow_switch(method: str, switch: float, handoff: float) -> None:
    sentence = refused({"method": method, "switch_step": switch, "handoff_step": handoff}, "handoff_step")
    assert sentence == (
        f"handoff_step is {handoff}, but must be greater than switch_step, which is {switch}, or 0 to keep the hybrid "
        "stage to the end."
    )


@pytest.mark.parametrize(
    ("method", "pairs"),
    [
        ("HybridStitch", [(0.3, 0.31), (8, 9), (8, 0), (0.3, 0), (0, 0.2), (0, 3)]),
        ("RAS", [(8, 0.2), (0.9, 2)]),  # two units: only the run's step count can tell
        ("T-Stitch", [(0.3, 0.2)]),
        ("SRDiffusion", [(8, 5)]),
    ],
)
def test_pairs_of_points_that_are_allowed(method: str, pairs: list[tuple[float, float]]) -> None:
    for switch, handoff in pairs:
        settings = StitchSettings.from_dict({"method": method, "switch_step": switch, "handoff_step": handoff})
        assert (settings.switch_step, settings.handoff_step) == (switch, handoff)


# --- presets


def test_presets_are_read_only_and_give_every_governed_field() -> None:
    assert [name for name, spec in SPECS.items() if spec.governed] == GOVERNED
    assert list(PRESETS) == ["Paper", "Quality", "Balanced", "Fast"]
    assert all(list(preset) == GOVERNED for preset in PRESETS.values())
    with pytest.raises(TypeError):
        PRESETS["Fast"] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        PRESETS["Fast"]["mask_ratio"] = 1.0  # type: ignore[index]


def test_defaults_are_the_balanced_preset() -> None:
    settings = StitchSettings()
    assert settings.preset == "Balanced"
    assert {name: getattr(settings, name) for name in GOVERNED} == dict(PRESETS["Balanced"])
    assert settings == StitchSettings.from_dict({}) == StitchSettings.from_dict({"preset": "Balanced"})


@pytest.mark.parametrize("label", PRESETS)
def test_preset_brings_its_values(label: str) -> None:
    settings = StitchSettings.from_dict({"preset": label, "kv_cache": "off"})
    assert settings.preset == label
    assert settings.kv_cache == "off"
    assert {name: getattr(settings, name) for name in GOVERNED} == dict(PRESETS[label])


@pytest.mark.parametrize("label", PRESETS)
@pytest.mark.parametrize("name", GOVERNED)
def test_explicit_value_wins_over_preset(label: str, name: str) -> None:
    other = {**PRESETS["Paper"], "method": "RAS", "mask_ratio": 0.9, "mask_threshold": 2.0, "small_scope": "outside"}
    other |= {
        "score": "change" if PRESETS[label]["score"] == "detail" else "detail",
        "extrapolate": 0.5,
        "refresh_every": 7,
        "adaptive": True,
        "switch_step": 0.1,
        "full_share": 0.7,
        "hold_guidance": 0.3,
    }
    other |= {"handoff_step": 0.9, "background": {"reuse": "small", "small": "reuse"}[PRESETS[label]["background"]]}
    same = StitchSettings.from_dict({"preset": label, name: PRESETS[label][name]})
    assert same == StitchSettings.from_dict({"preset": label})
    changed = StitchSettings.from_dict({"preset": label, name: other[name]})
    assert changed.to_dict() == {**same.to_dict(), "preset": "Custom", name: other[name]}


def test_when_the_label_becomes_or_stays_custom() -> None:
    defaults = StitchSettings().to_dict()
    assert StitchSettings.from_dict({"mask_ratio": 0.5}).to_dict() == defaults | {"preset": "Custom", "mask_ratio": 0.5}
    assert StitchSettings.from_dict({"preset": "Custom"}).to_dict() == defaults | {"preset": "Custom"}
    assert StitchSettings.from_dict({"preset": "Fast", "refresh_every": float(PRESETS["Fast"]["refresh_every"])}) == (
        StitchSettings.from_dict({"preset": "Fast"})
    )


def test_changed_preset_brings_its_values_but_explicit_changes_win() -> None:
    base = StitchSettings.from_dict({"mask_ratio": 0.5, "hires": "first"})
    assert base.with_changes({"preset": "Fast"}) == StitchSettings.from_dict({"preset": "Fast", "hires": "first"})
    both = base.with_changes({"preset": "Fast", "mask_ratio": 0.4})
    assert both == StitchSettings.from_dict({"preset": "Fast", "mask_ratio": 0.4, "hires": "first"})
    assert both.preset == "Custom"
    assert base.with_changes({"refresh_every": 9}).mask_ratio == 0.5
    assert base.with_changes({"preset": "Custom", "refresh_every": 9}).mask_ratio == 0.5


def test_changes_are_checked_together() -> None:
    base = StitchSettings.from_dict({"switch_step": 8, "handoff_step": 16})
    moved = base.with_changes({"switch_step": 20, "handoff_step": 24})
    assert (moved.switch_step, moved.handoff_step) == (20, 24)
    with pytest.raises(SettingsError, match=r"handoff_step is 16, but must be greater"):
        base.with_changes({"switch_step": 20})


def test_direct_construction_is_checked_and_keeps_the_label_true() -> None:
    with pytest.raises(SettingsError, match=r"^mask_ratio is 1\.5, but must be a number from 0 to 1\.$"):
        StitchSettings(mask_ratio=1.5)
    with pytest.raises(SettingsError, match=r"^mask_ratio is -1, but"):
        dataclasses.replace(StitchSettings(), mask_ratio=-1)
    assert StitchSettings(kv_cache="off").preset == "Balanced"
    assert StitchSettings(mask_ratio=0.5).preset == "Custom"
    fast = StitchSettings(preset="Fast", **PRESETS["Fast"])  # type: ignore[arg-type]
    assert fast.preset == "Fast"
    assert dataclasses.replace(fast, mask_ratio=0.9).preset == "Custom"


def test_settings_cannot_change_and_can_be_hashed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StitchSettings().mask_ratio = 0.5  # type: ignore[misc]
    assert len({StitchSettings(), StitchSettings(), StitchSettings(hires="first")}) == 2
