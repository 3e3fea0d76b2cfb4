"""The settings: ranges, presets, and every door's way in and out."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
import typing

import pytest

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.settings import PRESETS, FieldSpec, Scalar, StitchSettings, specs, step_index

SPECS = specs()

# The public order of positional values: a new name goes to the end, nothing else ever changes.
ORDER = [
    "enabled", "small_checkpoint", "large_checkpoint", "preset", "method", "switch_step", "handoff_step", "mask_ratio",
    "mask_threshold", "score", "background", "extrapolate", "small_scope", "refresh_every", "kv_cache", "hires",
    "show_mask", "small_device", "adaptive",
]  # fmt: skip
GOVERNED = [
    "method", "switch_step", "handoff_step", "mask_ratio", "mask_threshold", "score", "background", "extrapolate",
    "small_scope", "refresh_every", "adaptive",
]  # fmt: skip

BOUNDS: dict[str, tuple[float, float]] = {
    "switch_step": (0, 150),
    "handoff_step": (0, 150),
    "mask_ratio": (0, 1),
    "mask_threshold": (0, 100),
    "extrapolate": (0, 1),
    "refresh_every": (0, 50),
}
CHOICES = {
    "preset": ("Paper", "Quality", "Balanced", "Fast", "Custom"),
    "method": ("HybridStitch", "T-Stitch", "SRDiffusion", "RAS"),
    "score": ("disagreement", "change", "detail"),
    "background": ("small", "reuse"),
    "small_scope": ("all", "outside"),
    "kv_cache": ("full", "fp8", "off"),
    "hires": ("first", "second", "both"),
    "small_device": ("keep", "park", "second"),
}
BOOLS = ("enabled", "show_mask", "adaptive")
TEXTS = ("small_checkpoint", "large_checkpoint")
NOT_RECORDED = ("enabled", "show_mask", "small_device")
WRONG_TYPES: dict[type, list[object]] = {
    bool: [1, 0, 1.0, "true", "True", None],
    int: [True, False, "1", None, [0], {}, 1j, math.nan, math.inf, -math.inf, 2.5],
    float: [True, False, "0.3", "1", None, [0], {}, 1j, math.nan, math.inf, -math.inf],
    str: [None, 1, 0.5, True, ["a"], {}],
}


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
    assert sentence == "large_checkpoint is '', but must be a text that is not empty."


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
    other |= {"score": "change", "extrapolate": 0.5, "refresh_every": 7, "adaptive": True, "switch_step": 0.1}
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


# --- script arguments


def test_positional_values() -> None:
    assert StitchSettings.from_args([]) == StitchSettings()
    some = StitchSettings.from_args([True, "medium", "current", "Fast"])
    assert some == StitchSettings.from_dict({"enabled": True, "small_checkpoint": "medium", "preset": "Fast"})
    every = StitchSettings.from_dict({"preset": "Paper", "adaptive": True})
    assert StitchSettings.from_args(tuple(every.to_dict().values())) == every


def test_one_mapping_in_the_first_place_ignores_what_follows() -> None:
    values = {"enabled": True, "mask_ratio": 0.4}
    filled_up = list(StitchSettings().to_dict().values())[1:]
    assert StitchSettings.from_args([values, *filled_up, "more"]) == StitchSettings.from_dict(values)


def test_bad_positional_values() -> None:
    with pytest.raises(SettingsError, match=r"^20 values were given by position, but there are 19 settings\.$"):
        StitchSettings.from_args([*StitchSettings().to_dict().values(), 0])
    with pytest.raises(SettingsError, match=r"^enabled is 'yes', but must be"):
        StitchSettings.from_args(["yes"])


# --- round trips


def random_value(spec: FieldSpec, rng: random.Random) -> Scalar:
    """A valid value of one setting, the bounds themselves included."""
    if spec.kind is bool:
        return rng.random() < 0.5
    if spec.choices:
        return rng.choice(spec.choices)
    if spec.kind is str:
        return rng.choice(["current", "a, b: c", 'x: "y", z', "m.safetensors [ab12]", "été\\d/m, 1", "7", "True"])
    assert spec.minimum is not None
    assert spec.maximum is not None
    low, high = int(spec.minimum), int(spec.maximum)
    if spec.kind is int or (spec.whole_from_one and rng.random() < 0.5):
        return spec.kind(rng.randint(low, high))
    return rng.choice([low, high, rng.random(), round(rng.random(), 2), rng.random() * 1e-7])


def random_settings(seed: int) -> StitchSettings:
    """Valid settings with a random choice of fields set; every other seed leaves the preset's values alone."""
    rng = random.Random(seed)
    free = {name: spec for name, spec in SPECS.items() if seed % 2 or not spec.governed}
    values = {name: random_value(spec, rng) for name, spec in free.items() if rng.random() < 0.6}
    full = {**StitchSettings.from_dict({"preset": values.get("preset", "Balanced")}).to_dict(), **values}
    if 0 < full["handoff_step"] <= full["switch_step"]:
        values["handoff_step"] = 0.0
    return StitchSettings.from_dict(values)


def host_writes(texts: dict[str, str]) -> str:
    """One line of infotext as the hosts write it: a value with a comma, a colon or a line break is quoted as JSON."""
    entries = []
    for key, text in texts.items():
        quoted = json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
        entries.append(f"{key}: {quoted}")
    return ", ".join(entries)


def host_reads(line: str) -> dict[str, str]:
    """The entries of such a line."""
    texts = {}
    while line:
        key, _, line = line.partition(": ")
        if line.startswith('"'):
            texts[key], end = json.JSONDecoder().raw_decode(line)
            line = line[end:].removeprefix(", ")
        else:
            texts[key], _, line = line.partition(", ")
    return texts


@pytest.mark.parametrize("seed", range(200))
def test_random_settings_survive_every_round_trip(seed: int) -> None:
    settings = random_settings(seed)
    assert StitchSettings.from_dict(settings.to_dict()) == settings
    assert StitchSettings.from_dict(json.loads(json.dumps(settings.to_dict(), allow_nan=False))) == settings
    assert StitchSettings.from_args(list(settings.to_dict().values())) == settings
    texts = settings.to_infotext()
    assert all(type(text) is str and text for text in texts.values())
    defaults = StitchSettings().to_dict()
    recorded = dataclasses.replace(settings, **{name: defaults[name] for name in NOT_RECORDED})
    surroundings = {"Steps": "28", **texts, "HybridStitch version": "9.9", "Version": "v1"}
    assert StitchSettings.from_infotext(host_reads(host_writes(surroundings))) == recorded


def test_random_settings_are_varied() -> None:
    seen = [random_settings(seed) for seed in range(200)]
    for name, choices in CHOICES.items():
        assert {getattr(settings, name) for settings in seen} == set(choices)
    assert sum(settings.handoff_step > 0 for settings in seen) >= 40


# --- infotext


def test_infotext_of_the_defaults() -> None:
    assert StitchSettings().to_infotext() == {"HybridStitch preset": "Balanced"}
    assert StitchSettings(small_checkpoint="m").to_infotext() == {
        "HybridStitch small checkpoint": "m",
        "HybridStitch preset": "Balanced",
    }


def test_infotext_spells_numbers_plainly() -> None:
    settings = StitchSettings.from_dict(
        {"small_checkpoint": "m", "enabled": True, "show_mask": False, "small_device": "park", "switch_step": 8}
        | {"handoff_step": 0.57, "refresh_every": 0, "adaptive": True}
    )
    assert settings.to_infotext() == {
        "HybridStitch small checkpoint": "m",
        "HybridStitch preset": "Custom",
        "HybridStitch switch step": "8",
        "HybridStitch handoff step": "0.57",
        "HybridStitch refresh every": "0",
        "HybridStitch adaptive": "True",
    }


@pytest.mark.parametrize("label", PRESETS)
def test_preset_restores_from_its_label_alone(label: str) -> None:
    settings = StitchSettings.from_infotext({"HybridStitch preset": label})
    assert settings == StitchSettings.from_dict({"preset": label})


def test_foreign_infotext_is_ignored() -> None:
    foreign = {"": "x", "Steps": "many", "mask_ratio": "2", "HybridStitch stages": "8, 8"}
    assert StitchSettings.from_infotext({**foreign, "HybridStitch version": "0.1.0"}) == StitchSettings()


@pytest.mark.parametrize(
    ("key", "text", "name", "rest"),
    [
        ("HybridStitch mask ratio", "1.5", "mask_ratio", "must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "nan", "mask_ratio", "must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "1e999", "mask_ratio", "must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "0_1", "mask_ratio", "must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "", "mask_ratio", "must be a number from 0 to 1."),
        ("HybridStitch refresh every", "2.5", "refresh_every", "must be a whole number from 0 to 50."),
        ("HybridStitch adaptive", "yes", "adaptive", "must be true or false."),
        ("HybridStitch score", "Detail", "score", "must be one of disagreement, change, detail."),
        ("HybridStitch small checkpoint", 3, "small_checkpoint", "must be a text."),
    ],
)
def test_bad_infotext_names_its_key(key: str, text: object, name: str, rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        StitchSettings.from_infotext({key: text})
    assert str(caught.value).startswith(f"{key}: {name} is ")
    assert str(caught.value).endswith(rest)
    assert caught.value.key == name


def test_bad_infotext_names_a_key_that_the_preset_supplied() -> None:
    with pytest.raises(SettingsError, match=r"^HybridStitch handoff step: handoff_step is "):
        StitchSettings.from_infotext({"HybridStitch preset": "Paper", "HybridStitch switch step": "0.99"})


# --- what other doors are generated from


def test_labels_and_infotext_keys_are_unique() -> None:
    labels = [spec.label for spec in SPECS.values()]
    keys = [spec.infotext for spec in SPECS.values() if spec.infotext]
    assert len(set(labels)) == len(labels) == 19
    assert len(set(keys)) == len(keys) == 16
    assert [name for name, spec in SPECS.items() if not spec.infotext] == list(NOT_RECORDED)
    assert "HybridStitch version" not in keys


@pytest.mark.parametrize(("name", "spec"), SPECS.items())
def test_texts_are_grammatical(name: str, spec: FieldSpec) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z ]+", spec.label)
    assert not spec.infotext or re.fullmatch(r"HybridStitch [A-Za-z0-9_ /-]+", spec.infotext)
    assert re.fullmatch(r"[A-Z].{30,}\.", spec.help)
    assert len(re.findall(r"\.( |$)", spec.help)) <= 2, name


def test_where_fields_are_shown() -> None:
    assert [name for name, spec in SPECS.items() if spec.step] == list(BOUNDS)
    plain = ["enabled", "small_checkpoint", "preset", "switch_step", "handoff_step", "mask_ratio"]
    assert [name for name, spec in SPECS.items() if not spec.advanced] == plain
    assert [name for name, spec in SPECS.items() if spec.axis] == ["small_checkpoint", "preset", *GOVERNED]


def test_schema_is_closed_and_plain_json() -> None:
    schema = StitchSettings.json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ORDER
    assert json.loads(json.dumps(schema)) == schema
    schema["properties"].clear()
    assert list(StitchSettings.json_schema()["properties"]) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_schema_agrees_with_validation(name: str) -> None:
    entry = StitchSettings.json_schema()["properties"][name]
    assert entry["type"] == {bool: "boolean", int: "integer", float: "number", str: "string"}[SPECS[name].kind]
    assert entry["description"] == SPECS[name].help
    assert entry["default"] == getattr(StitchSettings(), name)
    assert (entry.get("minimum"), entry.get("maximum")) == BOUNDS.get(name, (None, None))
    assert entry.get("enum") == (list(CHOICES[name]) if name in CHOICES else None)
    assert entry.get("minLength") == (1 if name == "large_checkpoint" else None)
    points = ("switch_step", "handoff_step")
    assert entry.get("anyOf") == ([{"exclusiveMaximum": 1}, {"multipleOf": 1}] if name in points else None)


# --- from a setting to a step


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (28, {0.0: 0, 1e-9: 0, 0.15: 4, 0.29: 8, 0.57: 16, 0.999: 28, 1: 1, 8: 8, 9.0: 9, 28: 28, 150: 28}),
        (10, {0.24: 2, 0.25: 3, 0.34: 3, 0.35: 4}),
        (50, {0.29: 15}),  # 14.5, which binary floats make 14.499999999999998
        (1, {0.49: 0, 0.5: 1}),
        (0, {0.5: 0, 8: 0}),
    ],
)
def test_step_index(steps: int, expected: dict[float, int]) -> None:
    indices = {value: step_index(value, steps) for value in expected}
    assert indices == expected
    assert all(type(index) is int for index in indices.values())
