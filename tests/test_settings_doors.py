"""The settings' doors: script arguments, JSON schema, infotext."""

from __future__ import annotations

import dataclasses
import json
import random
import re

import pytest

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.fields import FieldSpec, Scalar
from lib_hybridstitch.settings import PRESETS, StitchSettings, step_index
from tests.settings_tables import BOUNDS, CHOICES, GOVERNED, NOT_RECORDED, ORDER, SPECS

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
    with pytest.raises(SettingsError, match=r"^23 values were given by position, but there are 22 settings\.$"):
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
        | {"handoff_step": 0.57, "refresh_every": 2, "adaptive": True}
    )
    assert settings.to_infotext() == {
        "HybridStitch small checkpoint": "m",
        "HybridStitch preset": "Custom",
        "HybridStitch switch step": "8",
        "HybridStitch handoff step": "0.57",
        "HybridStitch refresh every": "2",
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
        ("HybridStitch small checkpoint", 3, "small_checkpoint", "of one line and at most 1024 characters."),
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
    assert len(set(labels)) == len(labels) == 22
    assert len(set(keys)) == len(keys) == 19
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
    plain = ["enabled", "small_checkpoint", "preset", "switch_step", "handoff_step", "mask_ratio", "target_speedup"]
    assert [name for name, spec in SPECS.items() if not spec.advanced] == plain
    assert [name for name, spec in SPECS.items() if spec.axis] == [
        "small_checkpoint",
        "preset",
        *GOVERNED[:-1],
        "target_speedup",
        GOVERNED[-1],
    ]


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
    points = ("switch_step", "handoff_step", "hold_guidance")
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
