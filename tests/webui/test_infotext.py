"""A pasted infotext moves the panel, as the WebUIs do it: one function per control, called with everything."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lib_hybridstitch.settings import StitchSettings, preset_values, specs
from lib_hybridstitch.webui.infotext import Paste

KEPT = {"small_device"}
RUN_KEYS = {
    "Steps": "28",
    "HybridStitch": "8 large, 20 extrapolated",
    "HybridStitch profile": "generic",
    "HybridStitch version": "0.1.0",
    "HybridStitch small hash": "abc",
    "HybridStitch stopped": "a reason",
}


def paste(params: dict[str, Any]) -> dict[str, Any]:
    return {name: Paste(name)(params) for name in specs()}


@pytest.mark.parametrize(
    "values",
    [
        {"small_checkpoint": "medium.safetensors [abc]", "method": "HybridStitch"},
        {"preset": "Paper", "small_checkpoint": "m", "method": "HybridStitch", "kv_cache": "fp8"},
        {"small_checkpoint": "m", "plan": "8L 2M30 S"},
        {"mask_ratio": 0.4, "switch_step": 8, "small_checkpoint": "m", "method": "RAS"},
        {"preset": "Fast", "method": "Step cache", "target_speedup": 2.5},
    ],
    ids=["default", "preset", "plan", "custom", "target"],
)
def test_what_a_run_recorded_comes_back(values: dict[str, Any]) -> None:
    settings = StitchSettings.from_dict({"enabled": True, **values})
    expected = {name: None if name in KEPT else value for name, value in settings.to_dict().items()}
    pasted = paste({**settings.to_infotext(), **RUN_KEYS})
    assert pasted == expected
    assert all(value is None or type(value) is specs()[name].kind for name, value in pasted.items())


def test_the_plan_that_ran_comes_back_beside_the_settings_it_was_made_of() -> None:
    made = StitchSettings.from_dict({"enabled": True, "small_checkpoint": "m", "switch_step": 4})
    pasted = paste({**made.to_infotext(), "HybridStitch plan": "4L 2M30 X S"})
    assert (pasted["plan"], pasted["switch_step"], pasted["method"]) == ("4L 2M30 X S", 4, "HybridStitch")


def test_what_is_missing_takes_the_presets_value() -> None:
    pasted = paste({"HybridStitch preset": "Fast"})
    assert pasted["computed_share"] == preset_values("Fast", "Auto")["computed_share"]
    assert (pasted["small_checkpoint"], pasted["plan"]) == ("", "")


@pytest.mark.parametrize("params", [{}, {"Steps": "28"}, RUN_KEYS], ids=["empty", "plain", "no settings"])
def test_a_picture_without_our_settings_only_disables(params: dict[str, str]) -> None:
    assert paste(params) == {name: False if name == "enabled" else None for name in specs()}


def test_a_broken_infotext_only_disables_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "hybridstitch"):
        pasted = paste({"HybridStitch preset": "Fast", "HybridStitch mask ratio": "much"})
    assert pasted == {name: False if name == "enabled" else None for name in specs()}
    (record,) = caplog.records
    assert "HybridStitch mask ratio" in record.getMessage() and "'much'" in record.getMessage()


def test_fields_are_found_among_the_other_tabs_names() -> None:
    names = ["Prompt", "Seed", *map(Paste, specs())]
    assert Paste("preset") in names
    assert "Steps" not in names
    assert {Paste("preset"): 1}[Paste("preset")] == 1
