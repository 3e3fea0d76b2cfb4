"""The panel in a real gradio page: its controls, their names, and what happens when they are used."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from lib_hybridstitch.settings import StitchSettings, common_specs, method_specs, preset_values, specs
from lib_hybridstitch.webui.texts import PAGE
from tests.settings_tables import BOUNDS, OWN, POINTS, PRESETS_OF

Report = dict[str, Any]
TITLES = ["large.safetensors [abc]", "medium.safetensors"]
EFFECTIVE = {**{name: name for name in OWN}, "Auto": "HybridStitch"}
"""The method that each method comes to, with a small checkpoint."""


def control(report: Report, name: str, tab: str = "txt2img") -> dict[str, Any]:
    return dict(report["controls"][tab][list(specs()).index(name)])


def shows(changes: dict[str, Any], method: str) -> bool:
    """Whether a change of the page leaves a method's controls there, and no others."""
    there = {name: changes[name]["visible"] for name in method_specs()}
    presets = {"choices": [*PRESETS_OF[method], "Custom"], "visible": bool(PRESETS_OF[method])}
    return there == {name: name in OWN[method] for name in method_specs()} and changes["preset"] == presets


# --- what is there


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_one_control_per_setting_in_the_public_order(report: Report, tab: str) -> None:
    controls, shown = report["controls"][tab], [*specs().values()]
    assert [item["elem_id"] for item in controls[1:]] == [f"script_{tab}_hybridstitch_{name}" for name in specs()][1:]
    assert [item["label"] for item in controls] == ["HybridStitch", *(spec.label for spec in shown[1:])]
    assert [item["info"] for item in controls] == [None, *(spec.help for spec in shown[1:])]
    assert [item["value"] for item in controls] == list(StitchSettings().to_dict().values())
    assert [type(item["value"]) for item in controls] == [spec.kind for spec in shown]


def test_labels_and_ids_are_unique(report: Report) -> None:
    labels = [item["label"] for item in report["controls"]["txt2img"]]
    assert len(set(labels)) == len(labels)
    assert len(set(report["ids"])) == len(report["ids"])


@pytest.mark.parametrize("name", BOUNDS)
def test_numbers_have_their_range_and_points_are_typed(report: Report, name: str) -> None:
    made, spec = control(report, name), specs()[name]
    assert (made["minimum"], made["maximum"], made["step"]) == (spec.minimum, spec.maximum, spec.step)
    assert made["kind"] == ("Number" if name in POINTS else "Slider")


@pytest.mark.parametrize("name", [name for name, spec in specs().items() if spec.choices])
def test_texts_of_few_values_are_choices(report: Report, name: str) -> None:
    """All of them at first, presets too: a WebUI restores no saved value that is not among them."""
    assert control(report, name)["choices"] == list(specs()[name].choices)


def test_checkpoints_are_the_hosts_list_below_the_default_and_a_saved_one_stays(report: Report) -> None:
    assert control(report, "small_checkpoint")["choices"] == ["", *TITLES]
    assert control(report, "large_checkpoint")["choices"] == ["current", *TITLES]
    again = dict(zip(specs(), report["again"], strict=True))
    assert again["small_checkpoint"]["value"] == "gone.safetensors"
    assert again["small_checkpoint"]["choices"] == ["", *TITLES]


def test_only_the_controls_of_the_method_in_force_are_there_at_first(report: Report) -> None:
    for controls, method in ((report["controls"]["txt2img"], "Step cache"), (report["again"], "HybridStitch")):
        there = [name for name, item in zip(specs(), controls, strict=True) if item["visible"]]
        assert [name for name in there if name in method_specs()] == OWN[method]
        assert [name for name in there if name in common_specs() and name != "enabled"] == [*common_specs()][1:]


# --- what controls do to one another


@pytest.mark.parametrize("method", EFFECTIVE)
def test_a_method_shows_its_controls_and_presets_alone(report: Report, method: str) -> None:
    assert shows(report["shown"][method], EFFECTIVE[method])


def test_clearing_the_small_checkpoint_shows_the_step_caches_controls(report: Report) -> None:
    assert shows(report["cleared"], "Step cache")


def test_a_small_checkpoint_of_the_settings_page_counts(report: Report) -> None:
    without, with_one = report["shown_by_page"]
    assert shows(without, "Step cache") and shows(with_one, "HybridStitch")


@pytest.mark.parametrize("method", EFFECTIVE)
def test_choosing_a_method_brings_the_presets_values_and_ends_a_written_plan(report: Report, method: str) -> None:
    known = "Fast" in PRESETS_OF[EFFECTIVE[method]]
    told = {"plan": "", "preset": "Fast" if known else "Custom"}
    assert report["methods"][method] == {**told, **preset_values("Fast", method)}


def test_choosing_a_method_leaves_custom_values_behind(report: Report) -> None:
    told = {"plan": "", "preset": "Balanced"}
    assert report["custom_method"] == {**told, **preset_values("Balanced", "HybridStitch")}


@pytest.mark.parametrize("preset", ["Quality", "Fast", "Paper"])
def test_choosing_a_preset_brings_its_values_and_ends_plan_and_target(report: Report, preset: str) -> None:
    assert report["presets"][preset] == {"plan": "", "target_speedup": 0, **preset_values(preset, "Auto")}


@pytest.mark.parametrize("case", ["Custom", "set"])
def test_custom_and_a_preset_that_was_set_move_nothing(report: Report, case: str) -> None:
    """gradio 4 reports a value that was set, by a pasted infotext say, as if the user had chosen it."""
    changes = report["preset_set"] if case == "set" else report["presets"]["Custom"]
    assert changes == {name: {} for name in ("plan", "target_speedup", *method_specs())}


@pytest.mark.parametrize("name", method_specs())
def test_moving_a_control_names_the_preset_and_ends_plan_and_target(report: Report, name: str) -> None:
    own = name in OWN["HybridStitch"]
    target = 0 if name in ("switch_step", "handoff_step", "computed_share") else {}
    told = {"plan": "", "target_speedup": target}
    assert report["moved"][name] == {**told, "preset": "Custom" if own else "Fast"}
    assert report["named"][name] == {**told, "preset": "Fast"}


def test_a_target_ends_a_written_plan(report: Report) -> None:
    assert report["target"] == {"plan": ""}


def test_a_small_checkpoint_gives_the_preset_its_name_again(report: Report) -> None:
    assert report["chosen_small"] == {"preset": "Fast"}


def test_an_emptied_number_is_custom(report: Report) -> None:
    assert report["emptied"] == {"plan": "", "target_speedup": 0, "preset": "Custom"}


def test_values_change_by_what_the_user_does_alone(report: Report) -> None:
    """A plan is changed by nothing that listens to it, and `change` decides what is shown only."""
    deeds = ["method", "preset", "small_checkpoint", "target_speedup", *method_specs()]
    shown = ["method", "preset", "small_checkpoint"]
    assert report["heard"] == sorted([f"{name} input" for name in deeds] + [f"{name} change" for name in shown])
    for name in ("method", "score"):  # of a Radio gradio 4 reports every change as the user's
        assert control(report, name)["kind"] == "Dropdown"


# --- buttons and messages


def test_refresh_offers_what_the_host_now_has(report: Report) -> None:
    assert report["refreshed"] == [{"choices": ["", *TITLES, "new.safetensors"]}]


def test_release_says_what_happened_and_why_it_could_not(report: Report) -> None:
    first, second = (answer[0] for answer in report["released"])
    assert first == '<p class="hybridstitch-status">Freed 5.1 GB &lt;b&gt;.</p>'
    assert second == '<p class="hybridstitch-status">Nothing is loaded.</p>'


def test_buttons_are_not_saved_to_the_ui_config(report: Report) -> None:
    assert report["unsaved"] == [True] * 3


def test_the_hosts_problem_is_told_and_escaped(report: Report) -> None:
    assert report["broken"][0] == '<p class="hybridstitch-problem">This WebUI lacks &lt;modules.x&gt;.</p>'
    assert not any("hybridstitch-problem" in piece for piece in report["html"])


# --- what the page's scripts are handed


def live(report: Report) -> dict[str, str]:
    """What the page's scripts fill, by tab."""
    pieces = [piece for piece in report["html"] if "hybridstitch-live" in piece]
    return {re.findall('data-tab="(.*?)"', piece)[0]: piece for piece in pieces}


def carried(piece: str, name: str) -> Any:
    return json.loads(html.unescape(re.findall(f'data-{name}="(.*?)"', piece)[0]))


def test_the_page_knows_where_every_control_is_its_step_and_what_to_say(report: Report) -> None:
    assert list(live(report)) == ["txt2img", "img2img"]
    steps = {name: spec.step for name, spec in specs().items() if spec.step}
    for tab, piece in live(report).items():
        places = carried(piece, "controls")
        assert list(places) == list(specs())
        assert {*places.values(), carried(piece, "show")} <= set(report["ids"])
        assert carried(piece, "steps") == {f"script_{tab}_hybridstitch_{name}": step for name, step in steps.items()}
        assert carried(piece, "texts") == dict(PAGE)


def test_the_last_run_is_hidden_until_there_is_one(report: Report) -> None:
    for tab, piece in live(report).items():
        assert f'<div id="script_{tab}_hybridstitch_bar" class="hybridstitch-plan"></div>' in piece
        assert f'<section id="script_{tab}_hybridstitch_run" class="hybridstitch-run" hidden></section>' in piece


def test_the_style_sheet_finds_what_it_styles(report: Report) -> None:
    assert report["classes"] == {"hybridstitch-panel": 2, "hybridstitch-release": 2}  # one in each tab


def test_every_control_is_pasted_and_carried_to_the_other_tab(report: Report) -> None:
    assert [name for _, name in report["pasted"]] == list(specs())
    assert [label for label, _ in report["pasted"]] == [item["label"] for item in report["controls"]["txt2img"]]
    assert report["carried"] == [True] * len(specs())
