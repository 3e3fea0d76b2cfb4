"""What cannot be: the large model makes the picture alone, and one sentence says why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.client import WebUI, same

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"smal_checkpoint": "x"}, "There is no setting 'smal_checkpoint'; did you mean small_checkpoint?"),
    "out of range": ({"mask_ratio": 1.5}, "mask_ratio is 1.5, but must be a number from 0 to 1."),
    "text for a number": ({"mask_ratio": "0.3"}, "mask_ratio is '0.3', but must be a number from 0 to 1."),
    "number for a text": ({"plan": 8}, "plan is 8, but must be a text of one line"),
    "no such choice": ({"preset": "Turbo"}, "preset is 'Turbo', but must be one of Quality, Balanced, Fast, Paper"),
    "no such step": ({"plan": "8L M30 Q"}, "plan has 'Q', but must be steps such as"),
    "half a step": ({"switch_step": 3.5}, "switch_step is 3.5, but must be a fraction of the run"),
    "no such checkpoint": (
        {"preset": "Paper", "small_checkpoint": "no-such-file"},
        "no-such-file: is not in the WebUI's list of checkpoints",
    ),
    "a path": (
        {"preset": "Paper", "small_checkpoint": "../../etc/passwd"},
        "../../etc/passwd: is not in the WebUI's list of checkpoints",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_large_model_makes_the_picture_and_infotext_says_why(webui: WebUI, own_large: None, case: str) -> None:
    settings, sentence = WRONG[case]
    refused = webui.generate(webui.settings(**settings))
    assert sentence in refused.stopped
    assert refused.happened == ""
    assert webui.shows_its_own(refused)
    assert sentence in webui.last_run()["stopped"]


@pytest.mark.parametrize("case", WRONG)
def test_the_prediction_answers_422_with_the_sentence(webui: WebUI, case: str) -> None:
    settings, sentence = WRONG[case]
    status, answer = webui.call("/hybridstitch/v1/plan", {"settings": webui.settings(**settings)})
    assert status == 422
    assert sentence in answer["detail"]


def test_a_checkpoint_of_another_family_is_refused(webui: WebUI) -> None:
    if not webui.target.wrong:
        pytest.skip("name a checkpoint of another family with --webui-wrong")
    settings = webui.settings(preset="Paper", small_checkpoint=webui.target.wrong)
    refused = webui.generate(settings)
    assert "expected an SD3 or SD3.5 checkpoint" in refused.stopped
    assert webui.shows_its_own(refused)
    status, answer = webui.call("/hybridstitch/v1/plan", {"settings": settings})
    assert status == 422
    assert "expected an SD3 or SD3.5 checkpoint" in answer["detail"]


def test_a_plan_without_its_small_model_is_refused(webui: WebUI) -> None:
    settings = webui.settings(preset="Paper", small_checkpoint="")
    with webui.options(hybridstitch_small_checkpoint=""):
        refused = webui.generate(settings)
    assert "this plan needs a small model" in refused.stopped
    assert webui.shows_its_own(refused)


def test_the_settings_page_names_the_small_model_where_the_request_does_not(webui: WebUI) -> None:
    with webui.options(hybridstitch_small_checkpoint=webui.target.small):
        stitched = webui.generate(webui.settings(preset="Paper", small_checkpoint=""))
    assert stitched.stopped == ""
    assert same(stitched, webui.generate(webui.settings(preset="Paper")))


def test_too_many_positions_are_refused(webui: WebUI, own_large: None) -> None:
    count = len(webui.get("/hybridstitch/v1/schema")["positions"])
    refused = webui.generate([True] * (count + 1))
    assert webui.shows_its_own(refused)


@pytest.mark.parametrize("field", [{"steps": 0}, {"width": "wide"}, {"stepz": 8}, {"sampler": 3}, {"settings": [1, 2]}])
def test_a_prediction_of_no_run_is_refused(webui: WebUI, field: dict[str, Any]) -> None:
    status, answer = webui.call("/hybridstitch/v1/plan", field)
    assert status == 422
    assert answer["detail"]
