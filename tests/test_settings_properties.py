"""Whatever is handed over as settings is taken as it is and comes back, or is refused by a sentence that names it."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import hybridstitch_demo
from lib_hybridstitch.errors import SettingsError, quoted
from lib_hybridstitch.settings import AUTO, CUSTOM, DEFAULT_PRESET, StitchSettings, common_specs, preset_values, specs
from lib_hybridstitch.webui.infotext import Paste
from tests.properties import anything, api_dicts, scalars, stitch_settings, texts, tries, valid
from tests.sentences import one_sentence
from tests.settings_tables import NOT_RECORDED

HOST_INFOTEXT = Path(hybridstitch_demo.__file__).parent / "webui/common/modules/infotext_utils.py"


@pytest.fixture(scope="module")
def host() -> ModuleType:
    """The hosts' own way of writing and reading infotext, as the stand-ins have it."""
    spec = importlib.util.spec_from_file_location("infotext_utils_alone", HOST_INFOTEXT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_refusal(error: SettingsError, given_values: Mapping[Any, Any]) -> None:
    """One sentence, which names the key that was given."""
    said = str(error)
    assert one_sentence(said), said
    assert error.key in said or quoted(error.key) in said, (error.key, said)
    assert error.key in {key if isinstance(key, str) else quoted(key) for key in given_values}


def check_taken(settings: StitchSettings, values: Mapping[Any, Any]) -> None:
    """Every value that was given is there as it was given, and everything comes back."""
    kept = settings.to_dict()
    for name, value in values.items():
        wanted_custom = name == "preset" and kept["preset"] == CUSTOM
        assert kept[name] == value or wanted_custom
        assert isinstance(value, bool) == isinstance(kept[name], bool)
    label, method = values.get("preset", DEFAULT_PRESET), values.get("method", AUTO)
    in_force = settings.chosen()
    if kept["preset"] != label and label in in_force.presets:
        assert any(kept[name] != value for name, value in in_force.preset(label).items())
    usual = {**StitchSettings().to_dict(), **preset_values(label, method)}
    for name in specs():
        assert name in values or name == "preset" or kept[name] == usual[name]
    assert StitchSettings.from_dict(json.loads(json.dumps(kept, allow_nan=False))) == settings
    assert StitchSettings.from_args(list(kept.values())) == settings


def test_any_dict_is_taken_as_it_is_or_refused(long_run: bool) -> None:
    seen = {True: 0, False: 0}

    @tries(100, long_run)
    @given(values=api_dicts())
    def run(values: dict[Any, Any]) -> None:
        try:
            settings = StitchSettings.from_dict(values)
        except SettingsError as error:
            seen[False] += 1
            check_refusal(error, values)
        else:
            seen[True] += 1
            check_taken(settings, values)

    run()
    assert min(seen.values()) > 5, seen


def test_any_positional_values_are_taken_as_they_are_or_refused(long_run: bool) -> None:
    names = list(specs())

    @st.composite
    def positions(draw: st.DrawFn) -> list[Any]:
        count = draw(st.integers(0, len(names) + 3))
        wild = draw(st.integers(-1, count))
        return [draw(anything() if at == wild or at >= len(names) else valid(names[at])) for at in range(count)]

    @tries(50, long_run)
    @given(args=positions())
    def run(args: list[Any]) -> None:
        values = {name: value for name, value in zip(names, args, strict=False) if value is not None}
        if args and isinstance(args[0], Mapping):
            values = dict(args[0])
        try:
            settings = StitchSettings.from_args(args)
        except SettingsError as error:
            assert one_sentence(str(error))
            if len(args) <= len(names):
                check_refusal(error, values)
        else:
            check_taken(settings, values)

    run()


def test_what_is_no_mapping_is_refused(long_run: bool) -> None:
    @tries(50, long_run)
    @given(value=anything())
    def run(value: Any) -> None:
        assume(not isinstance(value, Mapping))
        with pytest.raises(SettingsError) as caught:
            StitchSettings.from_dict(value)
        assert one_sentence(str(caught.value))

    run()


def test_changes_are_taken_as_they_are_or_refused(long_run: bool) -> None:
    """As an X/Y/Z plot makes them, on top of any settings."""

    @tries(40, long_run)
    @given(before=stitch_settings(), changes=api_dicts())
    def run(before: StitchSettings, changes: dict[Any, Any]) -> None:
        try:
            after = before.with_changes(changes)
        except SettingsError as error:
            check_refusal(error, {**before.to_dict(), **changes})
        else:
            kept = after.to_dict()
            assert all(kept[name] == value for name, value in changes.items() if name != "preset")

    run()


def test_schema_and_check_agree_on_every_value(long_run: bool) -> None:
    """The schema's plain keywords, applied by hand to values that JSON can hold."""
    properties = StitchSettings.json_schema()["properties"]
    types = {"boolean": bool, "integer": (int, float), "number": (int, float), "string": str}

    def admits(rule: dict[str, Any], value: Any) -> bool:
        if isinstance(value, bool) != (rule["type"] == "boolean") or not isinstance(value, types[rule["type"]]):
            return False
        if rule["type"] == "string":
            fits = rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value))
            return fits and value in rule.get("enum", [value]) and bool(re.search(rule.get("pattern", ""), value))
        if rule["type"] == "boolean":
            return True
        if not rule["minimum"] <= value <= rule["maximum"] or (rule["type"] == "integer" and value != int(value)):
            return False
        return "anyOf" not in rule or value < 1 or value == int(value)

    @tries(150, long_run)
    @given(name=st.sampled_from(list(specs())), value=scalars(), data=st.data())
    def run(name: str, value: Any, data: st.DataObject) -> None:
        value = data.draw(st.one_of(st.just(value), valid(name)))
        try:
            specs()[name].check(name, value)
            taken = True
        except SettingsError:
            taken = False
        assert taken == admits(properties[name], value), (name, value)

    run()


# --- infotext


def test_any_text_under_our_keys_is_understood_or_refused(long_run: bool) -> None:
    keys = {spec.infotext: name for name, spec in specs().items() if spec.infotext}

    @st.composite
    def entries(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(list(keys)), min_size=1, max_size=4, unique=True))
        return {key: draw(st.one_of(valid(keys[key]).map(str), texts(), scalars())) for key in chosen}

    @tries(50, long_run)
    @given(entries=entries())
    def run(entries: dict[str, Any]) -> None:
        pasted = {name: Paste(name)(entries) for name in specs()}
        try:
            settings = StitchSettings.from_infotext(entries)
        except SettingsError as error:
            said = str(error)
            assert one_sentence(said) and said.startswith(f"{specs()[error.key].infotext}: {error.key} ")
            assert pasted == {name: False if name == "enabled" else None for name in specs()}
        else:
            recorded = {name: value for name, value in settings.to_dict().items() if specs()[name].infotext}
            assert pasted == {**dict.fromkeys(specs()), **recorded, "enabled": True}
            again = StitchSettings.from_infotext(settings.to_infotext())
            assert again.to_infotext() == settings.to_infotext()

    run()


def test_any_pasted_text_is_read_without_an_error(host: ModuleType, long_run: bool) -> None:
    """Through the hosts' own parser, as typed, copied from a web page or cut short."""
    good = ", ".join(f"{spec.infotext}: 0.5" for spec in specs().values() if spec.infotext)

    @st.composite
    def pasted(draw: st.DrawFn) -> str:
        kind = draw(st.integers(0, 2))
        if kind == 0:
            return draw(texts())
        line = f"Steps: 20, Sampler: Euler, Seed: 1, {good}"
        at = draw(st.integers(0, len(line)))
        return draw(texts()) + "\n" + line[:at] + draw(texts()) + (line[at:] if kind == 1 else "")

    @tries(50, long_run)
    @given(text=pasted())
    def run(text: str) -> None:
        params = host.parse_generation_parameters(text)
        values = host.values_for([(None, Paste(name)) for name in specs()], params)
        for name, value in zip(specs(), values, strict=True):
            assert value is None or type(value) is specs()[name].kind

    run()


def test_what_we_wrote_comes_back_through_a_hosts_infotext(host: ModuleType, long_run: bool) -> None:
    """For every name that the hosts' own quoting carries; it loses spaces at an end, quotes around, and 12x34."""

    @tries(40, long_run)
    @given(settings=stitch_settings(), prompt=texts())
    def run(settings: StitchSettings, prompt: str) -> None:
        written = settings.to_infotext()
        assert all(one_sentence(f"{key}: {text}.".replace("\u202e", "")) for key, text in written.items())
        around = {"Steps": "28", "Sampler": "Euler", "Seed": "7"}
        entries = {**around, **written, "HybridStitch": "8 large, 20 extrapolated"}
        line = ", ".join(f"{key}: {host.quote(value)}" for key, value in entries.items())
        read = host.parse_generation_parameters(f"{prompt}\n{line}")
        names = [specs()[name].infotext for name in ("small_checkpoint", "large_checkpoint")]
        assume(all(read.get(key) == written.get(key) for key in names))
        back = StitchSettings.from_infotext(read)
        replaced = {"method", *(("preset", "target_speedup") if settings.plan else ())}
        assert settings.plan or back.chosen() == settings.chosen()
        for name in common_specs().keys() - {*NOT_RECORDED, *replaced}:
            assert getattr(back, name) == getattr(settings, name)

    run()
