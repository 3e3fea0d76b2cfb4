"""Plans on a running WebUI: off and all-large are the host's own picture; every other plan runs to its end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.client import WebUI, distance, same

SRDIFFUSION = {"method": "SRDiffusion", "switch_step": 0.5}
PLANS: dict[str, dict[str, Any]] = {
    "Paper": {"preset": "Paper"},
    "Quality": {"preset": "Quality"},
    "Balanced": {"preset": "Balanced"},
    "Fast": {"preset": "Fast"},
    "T-Stitch": {"method": "T-Stitch", "switch_step": 0.5},
    "SRDiffusion": SRDIFFUSION,
    "SRDiffusion, adaptive": {**SRDIFFUSION, "adaptive": True},
    "RAS": {"method": "RAS", "switch_step": 0.2, "mask_ratio": 0.4},
    "Balanced with a target": {"preset": "Balanced", "target_speedup": 1.3},
    "Paper with a target": {"preset": "Paper", "target_speedup": 1.8},
    "small model outside the mask": {"preset": "Paper", "small_scope": "outside"},
    "masked reuse": {"preset": "Balanced", "mask_ratio": 0.3},
    "disagreement over reuse": {"preset": "Balanced", "mask_ratio": 0.3, "score": "disagreement"},
    "threshold": {"preset": "Paper", "mask_threshold": 0.001},
    "detail": {"preset": "Paper", "score": "detail"},
    "cache in fp8": {"preset": "Paper", "kv_cache": "fp8"},
    "no cache": {"preset": "Paper", "kv_cache": "off"},
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
    assert all(len(mask) == round(0.25 * tokens) for [mask] in masks)


def test_the_same_settings_make_the_same_picture(webui: WebUI) -> None:
    args = webui.settings(preset="Paper")
    assert same(webui.generate(args), webui.generate(args))


@pytest.mark.parametrize(
    "wish", [{"preset": "Balanced", "target_speedup": 1.3}, {"method": "T-Stitch", "target_speedup": 2}]
)
def test_what_a_target_came_to_makes_the_same_picture(webui: WebUI, wish: dict[str, Any]) -> None:
    wished = webui.generate(webui.settings(**wish))
    assert wished.keys["HybridStitch aimed at"].startswith(f"{wish['target_speedup']:g}x, foretold ")
    aimed = webui.last_run()["aimed"]
    assert aimed["target_speedup"] == 0
    again = webui.generate({**aimed, "enabled": True})
    assert again.happened == wished.happened
    assert same(again, wished)


def test_positions_mean_the_same_as_names(webui: WebUI) -> None:
    schema = webui.get("/hybridstitch/v1/schema")
    named = {**dict.fromkeys(schema["positions"]), **webui.settings(preset="Paper")}
    by_position = webui.generate([named[name] for name in schema["positions"]])
    assert by_position.happened
    assert same(by_position, webui.generate(webui.settings(preset="Paper")))


def test_a_mask_of_everything_is_the_large_model(webui: WebUI, own_large: None) -> None:
    whole = webui.generate(webui.settings(preset="Paper", switch_step=2, handoff_step=0, mask_ratio=1))
    assert "hybrid" in whole.happened
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


def _told(webui: WebUI, settings: dict[str, Any]) -> dict[str, Any]:
    """The forecast of the run that `WebUI.generate` asks for."""
    size = webui.target.size
    run = {"width": size, "height": size, "steps": webui.target.steps, "scheduler": "Simple"}
    return dict(webui.post("/hybridstitch/v1/plan", {"settings": settings, **run}))


def test_the_forecast_is_what_happens(webui: WebUI) -> None:
    settings = webui.settings(preset="Paper")
    told = _told(webui, settings)
    webui.generate(settings)
    [done] = webui.last_run()["passes"]
    assert [step["stage"] for step in told["steps"]] == [step["stage"] for step in done["steps"]]
    assert told["tokens"] == done["grid"][0] * done["grid"][1]


@pytest.mark.parametrize("preset", ["Balanced", "Fast"])
def test_guidance_is_held_in_the_steps_that_the_forecast_names(webui: WebUI, preset: str) -> None:
    settings = webui.settings(preset=preset)
    told = _told(webui, settings)
    stitched = webui.generate(settings)
    [done] = webui.last_run()["passes"]
    held = [step["held"] for step in told["steps"]]
    assert any(held)
    assert [step["rows_held"] > 0 for step in done["steps"]] == held
    assert f"{sum(held)} of them with guidance held" in stitched.happened


def test_guidance_is_held_only_if_asked_for(webui: WebUI) -> None:
    settings = webui.settings(preset="Balanced")
    held = webui.generate(settings)
    computed = webui.generate({**settings, "hold_guidance": 0})
    [done] = webui.last_run()["passes"]
    assert not any(step["rows_held"] for step in done["steps"])
    assert "held" not in computed.happened
    assert not same(computed, held)
