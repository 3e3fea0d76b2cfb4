"""The settings' doors: script arguments, JSON schema, infotext."""

from __future__ import annotations

import json
import re

import pytest

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.fields import FieldSpec
from lib_hybridstitch.settings import StitchSettings
from tests.settings_tables import BOUNDS, CHOICES, EVERY_PRESET, NOT_RECORDED, ORDER, POINTS, SPECS

# --- script arguments


def test_positions_are_the_settings_in_their_order() -> None:
    assert StitchSettings.from_args([]) == StitchSettings()
    some = StitchSettings.from_args([True, "medium", "Auto", None, 1.5])
    assert some == StitchSettings.from_dict({"enabled": True, "small_checkpoint": "medium", "target_speedup": 1.5})
    every = StitchSettings.from_dict({"preset": "Paper", "small_checkpoint": "m", "plan": "8L X"})
    assert StitchSettings.from_args(tuple(every.to_dict().values())) == every


def test_one_mapping_in_the_first_place_ignores_what_follows() -> None:
    values = {"enabled": True, "mask_ratio": 0.4}
    filled_up = list(StitchSettings().to_dict().values())[1:]
    assert StitchSettings.from_args([values, *filled_up, "more"]) == StitchSettings.from_dict(values)


def test_bad_positions_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"^17 values were given by position, but there are 16 settings\.$"):
        StitchSettings.from_args([*StitchSettings().to_dict().values(), 0])
    with pytest.raises(SettingsError, match=r"^enabled is 'yes', but must be"):
        StitchSettings.from_args(["yes"])


# --- infotext


def test_infotext_names_the_method_in_force_and_what_is_not_its_default() -> None:
    assert StitchSettings().to_infotext() == {
        "HybridStitch method": "Step cache",
        "HybridStitch preset": "Balanced",
    }
    made = StitchSettings.from_dict(
        {"enabled": True, "small_checkpoint": "m", "small_device": "park", "switch_step": 8, "computed_share": 0.6}
        | {"cfg_cache_from": 0.9, "kv_cache": "fp8"}  # of the two, Step cache alone has the first
    )
    assert made.to_infotext() == {
        "HybridStitch small checkpoint": "m",
        "HybridStitch method": "HybridStitch",
        "HybridStitch preset": "Custom",
        "HybridStitch kv cache": "fp8",
        "HybridStitch switch step": "8",
        "HybridStitch computed share": "0.6",
    }


@pytest.mark.parametrize(("method", "label"), EVERY_PRESET)
def test_a_preset_is_restored_from_its_names_alone(method: str, label: str) -> None:
    texts = {"HybridStitch method": method, "HybridStitch preset": label}
    made = StitchSettings.from_infotext(texts)
    assert made == StitchSettings.from_dict({"method": method, "preset": label})
    assert made.to_infotext() == texts


def test_foreign_infotext_is_ignored() -> None:
    foreign = {"": "x", "Steps": "many", "mask_ratio": "2"}
    of_a_run = {"HybridStitch": "8 large", "HybridStitch profile": "generic", "HybridStitch version": "0.1.0"}
    assert StitchSettings.from_infotext({**foreign, **of_a_run}) == StitchSettings()


@pytest.mark.parametrize(
    ("key", "text", "rest"),
    [
        ("HybridStitch mask ratio", "much", "mask_ratio is 'much', but must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "1.5", "mask_ratio is 1.5, but must be a number from 0 to 1."),
        ("HybridStitch mask ratio", "٣", "mask_ratio is '٣', but must be a number from 0 to 1."),
        ("HybridStitch score", "detail", "score is 'detail', but must be one of disagreement, change."),
        ("HybridStitch plan", "8Z", "plan has '8Z', but must be steps such as"),
    ],
)
def test_bad_infotext_is_refused_under_its_key(key: str, text: str, rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        StitchSettings.from_infotext({key: text})
    assert str(caught.value).startswith(f"{key}: {rest}")


# --- what other doors are generated from


def test_labels_and_infotext_keys_are_unique() -> None:
    labels = [spec.label for spec in SPECS.values()]
    keys = [spec.infotext for spec in SPECS.values() if spec.infotext]
    assert len(set(labels)) == len(labels) == 16
    assert len(set(keys)) == len(keys) == 14
    assert [name for name, spec in SPECS.items() if not spec.infotext] == list(NOT_RECORDED)
    assert not {"HybridStitch version", "HybridStitch profile"} & set(keys)


@pytest.mark.parametrize(("name", "spec"), SPECS.items())
def test_texts_are_short_and_grammatical(name: str, spec: FieldSpec) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z -]+", spec.label)
    assert not spec.infotext or re.fullmatch(r"HybridStitch [A-Za-z0-9_ /-]+", spec.infotext)
    assert re.fullmatch(r"[A-Z].{30,104}\.", spec.help), name


def test_what_nobody_sets_every_day_is_advanced_and_what_shapes_a_picture_is_an_axis() -> None:
    advanced = ["plan", "large_checkpoint", "hires", "kv_cache", "small_device"]
    assert [name for name, spec in SPECS.items() if spec.advanced] == advanced
    no_axis = ["enabled", "large_checkpoint", "hires", "kv_cache", "small_device"]
    assert [name for name, spec in SPECS.items() if not spec.axis] == no_axis


def test_schema_is_closed_and_plain_json() -> None:
    schema = StitchSettings.json_schema()
    assert (schema["$schema"], schema["type"]) == ("https://json-schema.org/draft/2020-12/schema", "object")
    assert schema["additionalProperties"] is False
    assert list(schema["properties"]) == ORDER
    assert json.loads(json.dumps(schema)) == schema
    schema["properties"].clear()
    assert list(StitchSettings.json_schema()["properties"]) == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_schema_agrees_with_validation(name: str) -> None:
    entry = StitchSettings.json_schema()["properties"][name]
    assert entry["type"] == {bool: "boolean", float: "number", str: "string"}[SPECS[name].kind]
    assert entry["description"] == SPECS[name].help
    assert entry["default"] == StitchSettings().to_dict()[name]
    assert (entry.get("minimum"), entry.get("maximum")) == BOUNDS.get(name, (None, None))
    assert entry.get("enum") == (list(CHOICES[name]) if name in CHOICES else None)
    assert entry.get("minLength") == (1 if name == "large_checkpoint" else None)
    assert entry.get("anyOf") == ([{"exclusiveMaximum": 1}, {"multipleOf": 1}] if name in POINTS else None)
