"""Plans on a running WebUI: off and all-large are the host's own picture; every other plan runs to its end."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.live.client import WebUI, distance, same

PLANS: dict[str, dict[str, Any]] = {
    **{preset: {"preset": preset} for preset in ("Paper", "Quality", "Balanced", "Fast")},
    "Step cache": {"method": "Step cache"},
    "Step cache, fast": {"method": "Step cache", "preset": "Fast"},
    "T-Stitch": {"method": "T-Stitch", "switch_step": 0.5},
    "SRDiffusion": {"method": "SRDiffusion", "switch_step": 0.5},
    "RAS": {"method": "RAS", "switch_step": 0.25, "mask_ratio": 0.4},
    "a target": {"target_speedup": 1.3},
    "a target without a second model": {"method": "Step cache", "target_speedup": 1.5},
    "mask by change": {"preset": "Paper", "score": "change"},
    "cache in fp8": {"preset": "Paper", "kv_cache": "fp8"},
    "no cache": {"preset": "Paper", "kv_cache": "off"},
    "a written plan": {"plan": "3L M30 X M30x S L"},
}


def test_off_is_the_same_before_and_after_a_stitched_run(webui: WebUI) -> None:
    before = webui.generate()
    stitched = webui.generate(webui.settings(preset="Paper"))
    after = webui.generate()
    assert before.painted
    assert stitched.happened
    assert same(before, after)
    assert not any("HybridStitch" in key for key in after.keys)


def test_disabled_is_off(webui: WebUI) -> None:
    disabled = webui.generate(webui.settings(enabled=False, preset="Paper"))
    assert same(disabled, webui.generate())
    assert not any("HybridStitch" in key for key in disabled.keys)


def test_a_plan_that_stays_large_is_the_hosts_own_picture(webui: WebUI, own_large: None) -> None:
    large = webui.generate(webui.all_large())
    assert large.happened == f"{webui.target.steps} large"
    assert same(large, webui.generate())


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_runs_to_its_end(webui: WebUI, plan: str) -> None:
    reference = webui.reference()
    stitched = webui.generate(webui.settings(**PLANS[plan]))
    assert stitched.painted
    assert stitched.stopped == ""
    assert not same(stitched, reference)
    run = webui.last_run()
    assert run["stopped"] == ""
    [done] = run["passes"]
    assert done["happened"] == stitched.happened
    assert len(done["steps"]) == webui.target.steps
    assert [step["sigma"] for step in done["steps"]] == sorted((s["sigma"] for s in done["steps"]), reverse=True)


def test_the_mask_has_the_size_that_was_asked_for(webui: WebUI) -> None:
    webui.generate(webui.settings(preset="Paper", mask_ratio=0.25))
    [done] = webui.last_run()["passes"]
    tokens = done["grid"][0] * done["grid"][1]
    masks = [step["mask"] for step in done["steps"] if step["mask"] is not None]
    assert masks
    assert all(len(mask) == int(0.25 * tokens + 0.5) for [mask] in masks)


def test_the_same_settings_make_the_same_picture(webui: WebUI) -> None:
    args = webui.settings(preset="Paper")
    assert same(webui.generate(args), webui.generate(args))


@pytest.mark.parametrize("method", ["HybridStitch", "Step cache"])
@pytest.mark.parametrize("changes", [{}, {"target_speedup": 1.5}], ids=["preset", "target"])
def test_the_recorded_plan_makes_the_same_picture(webui: WebUI, method: str, changes: dict[str, Any]) -> None:
    first = webui.generate(webui.settings(method=method, **changes))
    again = webui.generate(webui.settings(plan=first.keys["HybridStitch plan"]))
    assert again.happened == first.happened
    assert same(again, first)


def test_positions_mean_the_same_as_names(webui: WebUI) -> None:
    schema = webui.get("/hybridstitch/v1/schema")
    named = {**dict.fromkeys(schema["positions"]), **webui.settings(preset="Paper")}
    by_position = webui.generate([named[name] for name in schema["positions"]])
    assert by_position.happened
    assert same(by_position, webui.generate(webui.settings(preset="Paper")))


def test_a_mask_of_everything_is_the_large_model(webui: WebUI, own_large: None) -> None:
    whole = webui.generate(webui.settings(preset="Paper", switch_step=2, handoff_step=0, mask_ratio=1))
    assert set(whole.steps()) == {"large"}
    assert same(whole, webui.generate())


def test_a_parked_small_model_makes_the_same_picture(webui: WebUI) -> None:
    kept = webui.generate(webui.settings(preset="Paper"))
    for _ in range(2):
        parked = webui.generate(webui.settings(preset="Paper", small_device="park"))
        assert parked.stopped == ""
        assert same(parked, kept)


def test_a_second_device_works_or_is_refused_in_words(webui: WebUI) -> None:
    second = webui.generate(webui.settings(preset="Paper", small_device="second"))
    if second.stopped:
        assert "small_device is 'second'" in second.stopped
        assert webui.shows_its_own(second)
    else:
        assert distance(second.pictures[0], webui.generate(webui.settings(preset="Paper")).pictures[0]) < 1


def test_the_small_checkpoint_in_another_format(webui: WebUI, form: str) -> None:
    other = webui.generate(webui.settings(preset="Paper", small_checkpoint=form))
    assert other.stopped == ""
    assert other.painted
    usual = webui.generate(webui.settings(preset="Paper"))
    reference = webui.reference()
    assert distance(other.pictures[0], usual.pictures[0]) < distance(reference.pictures[0], usual.pictures[0])


@pytest.mark.parametrize("settings", [{"preset": "Paper"}, {}, {"method": "Step cache"}], ids=str)
def test_what_is_predicted_happens(webui: WebUI, settings: dict[str, Any]) -> None:
    size = webui.target.size
    run = {"width": size, "height": size, "steps": webui.target.steps, "scheduler": "Simple"}
    told = webui.post("/hybridstitch/v1/plan", {"settings": webui.settings(**settings), **run})
    webui.generate(webui.settings(**settings))
    [done] = webui.last_run()["passes"]
    assert told["plan"] == done["plan"]
    assert [step["kind"] for step in told["steps"]] == [step["kind"] for step in done["steps"]]
    assert told["tokens"] == done["grid"][0] * done["grid"][1]


def test_the_plainest_call_is_the_method(webui: WebUI) -> None:
    stitched = webui.generate(
        {
            "enabled": True,
            "small_checkpoint": webui.target.small,
            "large_checkpoint": webui.target.large,
            "switch_step": 4,
            "mask_ratio": 0.3,
        },
        steps=28,
    )
    assert stitched.keys["HybridStitch method"] == "HybridStitch"
    assert {"large", "masked", "small"} <= set(stitched.steps())
    assert re.match(r"4L \d*M30 ", stitched.keys["HybridStitch plan"])


def test_without_a_small_checkpoint_the_step_cache_runs(webui: WebUI) -> None:
    with webui.options(hybridstitch_small_checkpoint=""):
        alone = webui.generate(webui.settings(small_checkpoint=""), steps=28)
    assert alone.keys["HybridStitch method"] == "Step cache"
    assert "small" not in alone.steps() and "extrapolated" in alone.steps()
    assert any("No small checkpoint is chosen" in message for message in webui.last_run()["messages"])


def test_guidance_is_cached_only_if_asked_for(webui: WebUI) -> None:
    cached = webui.generate(webui.settings(method="Step cache"), steps=28)
    [done] = webui.last_run()["passes"]
    assert any(step["rows_cached"] for step in done["steps"]) and "CFG cached" in cached.steps()
    computed = webui.generate(webui.settings(method="Step cache", cfg_cache_from=0), steps=28)
    [done] = webui.last_run()["passes"]
    assert not any(step["rows_cached"] for step in done["steps"])
    assert not same(computed, cached)
