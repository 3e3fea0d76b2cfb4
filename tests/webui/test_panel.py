"""The panel in a real gradio page: its controls, their names, and what happens when they are used."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from lib_hybridstitch.settings import PRESETS, StitchSettings, specs
from lib_hybridstitch.webui.texts import PAGE

Report = dict[str, Any]
GOVERNED = [name for name, spec in specs().items() if spec.governed]
TITLES = ["large.safetensors [abc]", "medium.safetensors"]


def control(report: Report, name: str, tab: str = "txt2img") -> dict[str, Any]:
    return dict(report["controls"][tab][list(specs()).index(name)])


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


@pytest.mark.parametrize("name", [name for name, spec in specs().items() if spec.kind in (int, float)])
def test_numbers_have_their_range(report: Report, name: str) -> None:
    made, spec = control(report, name), specs()[name]
    assert (made["minimum"], made["maximum"], made["step"]) == (spec.minimum, spec.maximum, spec.step)
    assert made["kind"] == (
        "Number" if name in ("switch_step", "handoff_step", "mask_threshold", "hold_guidance") else "Slider"
    )


@pytest.mark.parametrize("name", [name for name, spec in specs().items() if spec.choices])
def test_texts_of_few_values_are_choices(report: Report, name: str) -> None:
    assert control(report, name)["choices"] == list(specs()[name].choices)


def test_checkpoints_are_the_hosts_list_below_the_default(report: Report) -> None:
    assert control(report, "small_checkpoint")["choices"] == ["", *TITLES]
    assert control(report, "large_checkpoint")["choices"] == ["current", *TITLES]


def test_building_again_keeps_a_checkpoint_the_list_does_not_have(report: Report) -> None:
    again = dict(zip(specs(), report["again"], strict=True))
    assert again["small_checkpoint"]["value"] == "gone.safetensors"
    assert again["small_checkpoint"]["choices"] == ["", *TITLES]


@pytest.mark.parametrize("preset", PRESETS)
def test_choosing_a_preset_moves_what_it_governs(report: Report, preset: str) -> None:
    assert report["presets"][preset] == [PRESETS[preset][name] for name in GOVERNED]


def test_choosing_custom_moves_nothing(report: Report) -> None:
    assert len(report["presets"]["Custom"]) == len(GOVERNED)
    assert all(change["__type__"] == "update" and "value" not in change for change in report["presets"]["Custom"])


@pytest.mark.parametrize("preset", PRESETS)
def test_moving_any_governed_control_to_a_preset_names_it(report: Report, preset: str) -> None:
    assert report["names"][preset] == [[preset]] * len(GOVERNED)


@pytest.mark.parametrize("case", ["by_hand", "empty"])
def test_other_values_are_custom(report: Report, case: str) -> None:
    assert report[case] == ["Custom"]


def test_no_other_listener_can_close_a_circle(report: Report) -> None:
    per_panel = len(GOVERNED) + len(["preset", "refresh", "release"])
    assert report["listeners"] == 2 * per_panel


def test_refresh_offers_what_the_host_now_has(report: Report) -> None:
    (change,) = report["refreshed"]
    offered = [choice[-1] if isinstance(choice, list) else choice for choice in change["choices"]]  # gradio 4: pairs
    assert offered == ["", *TITLES, "new.safetensors"]
    assert "value" not in change


def test_release_says_what_happened_and_why_it_could_not(report: Report) -> None:
    first, second = (answer[0] for answer in report["released"])
    assert first == '<p class="hybridstitch-status">Freed 5.1 GB &lt;b&gt;.</p>'
    assert second == '<p class="hybridstitch-status">Nothing is loaded.</p>'


def test_buttons_are_not_saved_to_the_ui_config(report: Report) -> None:
    assert report["unsaved"] == [True, True]


def test_the_hosts_problem_is_told_and_escaped(report: Report) -> None:
    assert report["broken"][0] == '<p class="hybridstitch-problem">This WebUI lacks &lt;modules.x&gt;.</p>'
    assert not any("hybridstitch-problem" in piece for piece in report["html"])


def live(report: Report) -> dict[str, str]:
    """What the page's scripts fill, by tab."""
    pieces = [piece for piece in report["html"] if "hybridstitch-live" in piece]
    return {re.findall('data-tab="(.*?)"', piece)[0]: piece for piece in pieces}


def carried(piece: str, name: str) -> dict[str, Any]:
    return dict(json.loads(html.unescape(re.findall(f'data-{name}="(.*?)"', piece)[0])))


def test_the_stage_bar_knows_where_each_control_is(report: Report) -> None:
    assert list(live(report)) == ["txt2img", "img2img"]
    for piece in live(report).values():
        places = carried(piece, "controls")
        assert list(places) == list(specs())
        assert set(places.values()) <= set(report["ids"])


def test_the_page_knows_the_step_of_every_number(report: Report) -> None:
    numbers = {name: spec.step for name, spec in specs().items() if spec.kind in (int, float)}
    for tab, piece in live(report).items():
        steps = {f"script_{tab}_hybridstitch_{name}": step for name, step in numbers.items()}
        assert carried(piece, "steps") == steps


def test_the_page_is_told_what_to_say(report: Report) -> None:
    for piece in live(report).values():
        assert carried(piece, "texts") == dict(PAGE)


def test_the_last_run_is_hidden_until_there_is_one(report: Report) -> None:
    for tab, piece in live(report).items():
        assert f'<div id="script_{tab}_hybridstitch_plan" class="hybridstitch-plan"></div>' in piece
        assert f'<section id="script_{tab}_hybridstitch_run" class="hybridstitch-run" hidden></section>' in piece


def test_the_style_sheet_finds_what_it_styles(report: Report) -> None:
    assert report["classes"] == {"hybridstitch-panel": 2, "hybridstitch-release": 2}  # one in each tab


def test_every_control_is_pasted_and_carried_to_the_other_tab(report: Report) -> None:
    assert [name for _, name in report["pasted"]] == list(specs())
    assert [label for label, _ in report["pasted"]] == [item["label"] for item in report["controls"]["txt2img"]]
    assert report["carried"] == [True] * len(specs())
