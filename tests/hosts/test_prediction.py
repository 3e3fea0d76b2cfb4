"""What is said before a run is what the run does, and a target speed-up comes to a plan that keeps it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib_hybridstitch.prediction.resolver import ADVICE
from lib_hybridstitch.webui.api import plan
from tests.hosts.conftest import ALL_LARGE, STEPS, Web

REQUEST: dict[str, Any] = {"steps": STEPS, "width": 128, "height": 128, "cfg_scale": 3.0, "scheduler": "Simple"}
PAPER: dict[str, Any] = {"enabled": True, "preset": "Paper"}


def asked(web: Web, settings: dict[str, Any], **request: Any) -> dict[str, Any]:
    """What the page would say of a run as the tests make it."""
    wanted = {"small_checkpoint": web.small, **settings}
    return dict(plan(web.extension, {**REQUEST, "settings": wanted, **request}))


@pytest.mark.parametrize("preset", ["Quality", "Balanced", "Fast", "Paper"])
@pytest.mark.parametrize("steps", [4, 20])
def test_a_run_does_what_the_page_said(web: Web, preset: str, steps: int) -> None:
    web.on(steps=1)  # so that the length of a prompt is known
    web.extension.timings.clear()
    told = asked(web, {"preset": preset}, steps=steps)
    web.on({"preset": preset}, steps=steps)
    done = web.last_pass
    assert told["plan"] == done["plan"] and told["method"] == done["method"] == "HybridStitch"
    assert [step["kind"] for step in told["steps"]] == [step["kind"] for step in done["steps"]]
    assert [step["sigma"] for step in told["steps"]] == pytest.approx([step["sigma"] for step in done["steps"]])
    for step, ran in zip(told["steps"], done["steps"], strict=True):
        for side in ("large", "small"):
            assert ran[f"tokens_{side}"] / ran["tokens"] == pytest.approx(step[side], abs=0.02)
    assert told["speedup"] == pytest.approx(done["predicted"])
    assert told["tokens"] == done["grid"][0] * done["grid"][1]


def test_the_page_predicts_an_img2img_run_too(web: Web) -> None:
    web.host.load()
    told = asked(web, PAPER, steps=12, denoising_strength=0.5)
    web.on(steps=12, kind="img2img", denoising_strength=0.5)
    assert told["plan"] == web.last_pass["plan"]
    assert len(told["steps"]) == len(web.last_pass["steps"]) == 7


def test_a_run_all_large_gains_nothing(web: Web) -> None:
    web.on(ALL_LARGE)
    assert web.last_pass["predicted"] == pytest.approx(1)
    assert web.extension.last_run["messages"] == [f"HybridStitch: {ADVICE['not_faster']}"]


def test_longer_prompts_change_the_next_prediction(web: Web) -> None:
    web.on()
    web.extension.timings.clear()
    before = asked(web, PAPER)
    web.on(prompt=" ".join(["word"] * 15))
    done = web.last_pass
    web.extension.timings.clear()
    after = asked(web, PAPER)
    assert after["speedup"] == pytest.approx(done["predicted"])
    assert after["speedup"] != pytest.approx(before["speedup"])


def test_a_prediction_rests_on_measured_times_once_there_are_any(web: Web) -> None:
    web.host.load()
    web.extension.timings.clear()
    assert asked(web, PAPER)["seconds"] is None
    web.on()
    done = web.last_pass
    told = asked(web, PAPER)
    assert told["summary"].endswith("by measured times")
    assert told["seconds"] == pytest.approx(sum(step["ms"] for step in done["steps"]) / 1000, rel=0.6)
    assert told["speedup"] == pytest.approx(told["large_seconds"] / told["seconds"])
    assert asked(web, PAPER, width=256)["seconds"] is None, "of another size nothing is known"
    web.host.callbacks.model_loaded_callback(web.host.sd_model)
    assert asked(web, PAPER)["seconds"] is None, "another checkpoint has other times"


@pytest.mark.parametrize("method", ["HybridStitch", "Step cache", "T-Stitch", "SRDiffusion", "RAS"])
def test_a_target_is_kept_in_every_method(web: Web, method: str) -> None:
    if web.host.name == "a1111" and method in ("T-Stitch", "SRDiffusion"):
        return  # its own large model is no larger than the small one here, so nothing is gained by either
    web.extension.timings.clear()
    web.on({"preset": "Balanced", "method": method, "target_speedup": 1.3}, steps=28)
    done = web.last_pass
    assert done["method"] == method
    assert 0.99 * 1.3 <= done["predicted"] < 1.6
    kinds = [step["kind"] for step in done["steps"]]
    assert 0 < kinds.count("L") < 28


def test_a_target_out_of_reach_is_said_and_the_fastest_plan_runs(web: Web) -> None:
    result = web.on({"method": "Step cache", "target_speedup": 4.0}, cfg_scale=3.0)
    assert f"HybridStitch: {ADVICE['target']}" in result.comments
    assert "HybridStitch stopped" not in result.infotext and "extrapolated" in result.infotext["HybridStitch"]


def test_every_batch_of_a_run_keeps_to_the_first_ones_plan(web: Web) -> None:
    """Whatever was measured meanwhile: the first batch's times would make the second choose another plan."""
    web.extension.timings.clear()
    batches = web.on({"preset": "Balanced", "target_speedup": 1.4}, steps=12, n_iter=3)
    plans = [text.split("HybridStitch plan: ")[1].split(",")[0] for text in batches.infotexts]
    assert len(plans) == 3 and len(set(plans)) == 1


def test_a_run_is_kept_under_the_hosts_task(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = web.host.module("modules.progress")
    assert web.extension.host.task() == ""
    for task in ("task(one)", "task(two)"):
        monkeypatch.setattr(progress, "current_task", task)
        assert web.extension.host.task() == task
        web.on(prompt="a secret garden")
    one, two = (web.extension.run_of(task) for task in ("task(one)", "task(two)"))
    assert one["task"] == "task(one)" and two == web.extension.last_run
    assert web.extension.run_of("task(three)") is None
    [done] = two["passes"]
    masked = [step["kind"] == "M" for step in done["steps"]]
    assert any(masked) and [step["mask"] is not None for step in done["steps"]] == masked, "the masks are there"
    assert "secret" not in str(two), "no prompts"


def test_a_plan_that_caches_cfg_spares_the_negative_prompts_rows(web: Web) -> None:
    computed = web.on({"plan": "1L"}, steps=20)
    cached = web.on({"plan": "15L 5C"}, steps=20)
    spared = [
        (step["rows"], step["rows_cached"], step["tokens_large"] / step["tokens"]) for step in web.last_pass["steps"]
    ]
    assert spared == [(2, 0, 1.0)] * 15 + [(2, 1, 0.5)] * 5
    assert cached.infotext["HybridStitch"] == "15 large, 5 CFG cached"
    assert not torch.equal(cached.latents, computed.latents) and bool(torch.isfinite(cached.latents).all())


def test_without_guidance_nothing_is_left_to_cache(web: Web) -> None:
    """A1111 computes the negative prompt's rows at CFG 1 too, where they do not count."""
    computed, cached = (web.on({"plan": text}, cfg_scale=1.0, steps=20).latents for text in ("1L", "15L 5C"))
    assert torch.allclose(computed, cached, atol=1e-5)
