"""What a picture records makes it again, whatever becomes of presets and defaults; and what it records at all."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
import torch

from lib_hybridstitch import __version__
from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.settings import StitchSettings, specs
from lib_hybridstitch.webui.infotext import Paste
from tests.hosts.conftest import HIRES, Web
from tests.standins import Result

WAYS: dict[str, dict[str, Any]] = {
    "txt2img": {"steps": 12},
    "img2img": {"kind": "img2img", "denoising_strength": 0.75, "steps": 12},
    "hires": {"steps": 6, **HIRES, "hr_scale": 1.25, "hr_second_pass_steps": 8},
}


def parsed(web: Web, result: Result) -> dict[str, str]:
    """The text under a picture, read as the host reads it."""
    read = web.host.module("modules.infotext_utils").parse_generation_parameters
    return dict(read(result.infotexts[0]))


def change_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later version might: other numbers in every preset, and other defaults."""
    for method in (HybridStitch, StepCache):
        monkeypatch.setattr(method, "presets", {name: {"computed_share": 0.9} for name in method.presets})
        other = {"switch_step": 0.6, "handoff_step": 0.8, "mask_ratio": 0.55, "computed_share": 0.8}
        for item in fields(method):
            if item.name in other:
                monkeypatch.setattr(item, "default", other[item.name])


def pasted(web: Web, params: dict[str, str], **way: Any) -> Result:
    """Generate with what the panel's controls take from a text, by position; None leaves a control as it is."""
    return web.host.generate(alwayson={"HybridStitch": [Paste(name)(params) for name in specs()]}, **way)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("method", ["HybridStitch", "Step cache"])
def test_a_pasted_picture_is_made_again_though_the_presets_have_changed(
    web: Web, method: str, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stitch = {"small_checkpoint": web.small, "method": method}
    made = web.call(stitch, **way)
    params = parsed(web, made)
    assert ("/ hires" in params["HybridStitch plan"]) == ("enable_hr" in way)
    with monkeypatch.context() as later:
        change_numbers(later)
        by_settings = StitchSettings.from_infotext(params).to_dict()
        again = [pasted(web, params, **way), web.call({**by_settings, "enabled": True}, **way)]
        other = web.call(stitch, **way)
    for result in again:
        assert torch.equal(result.latents, made.latents)
        assert result.infotext["HybridStitch plan"] == made.infotext["HybridStitch plan"]
    assert not torch.equal(other.latents, made.latents), "without the recorded plan the numbers' change would show"


@pytest.mark.parametrize(
    "stitch",
    [
        {"preset": "Paper", "mask_ratio": 0.4, "kv_cache": "fp8"},
        {"score": "change", "switch_step": 3},
        {"method": "RAS", "mask_ratio": 0.33},
        {"method": "T-Stitch", "switch_step": 0.5},
        {"target_speedup": 1.6},
        {"plan": "3L M30 X M30x S X s C"},
        {"kv_cache": "off", "preset": "Fast"},
    ],
    ids=str,
)
def test_what_was_set_is_recorded_and_makes_the_picture_again(web: Web, stitch: dict[str, Any]) -> None:
    made = web.call({"small_checkpoint": web.small, **stitch}, steps=10)
    assert "HybridStitch stopped" not in made.infotext
    copy = pasted(web, parsed(web, made), steps=10)
    copys_copy = pasted(web, parsed(web, copy), steps=10)
    for result in (copy, copys_copy):
        assert torch.equal(result.latents, made.latents)
        assert result.infotext["HybridStitch plan"] == made.infotext["HybridStitch plan"]
    assert copys_copy.infotext == copy.infotext


@pytest.mark.parametrize("choice", ["first", "second"])
def test_a_run_with_one_hires_pass_stitched_is_made_again(web: Web, choice: str) -> None:
    way = WAYS["hires"]
    made = web.call({"small_checkpoint": web.small, "hires": choice}, **way)
    assert made.infotext["HybridStitch plan"].startswith("/ hires") == (choice == "second")
    assert torch.equal(pasted(web, parsed(web, made), **way).latents, made.latents)


def test_a_picture_records_what_happened_and_nothing_that_had_no_part(web: Web) -> None:
    made = web.on({"switch_step": 2, "handoff_step": 5})
    assert made.infotext["HybridStitch"] == "2 large, 3 masked at 30 %, 3 small"
    assert made.infotext["HybridStitch plan"].startswith("2L 3M30 3S")
    assert made.infotext["HybridStitch profile"] == "generic"
    assert made.infotext["HybridStitch small checkpoint"] == web.small
    assert len(made.infotext["HybridStitch small hash"]) == 10
    assert made.infotext["HybridStitch version"] == __version__
    alone = web.on({"method": "Step cache", "preset": "Balanced"})
    assert alone.infotext["HybridStitch method"] == "Step cache"
    assert not [key for key in alone.infotext if "small" in key]
    assert not [key for key in web.off().infotext if "HybridStitch" in key]


def test_a_hash_that_cannot_be_had_is_left_out_and_stops_nothing(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    made = web.on()

    def fail(*_: object) -> None:
        raise OSError("the cache is being written")

    monkeypatch.setattr(web.host.module("modules.hashes"), "sha256", fail)
    again = web.on()
    assert "HybridStitch small hash" not in again.infotext and "HybridStitch stopped" not in again.infotext
    assert torch.equal(again.latents, made.latents)


def test_a_profile_of_the_current_checkpoint_is_used_and_named_and_a_broken_one_told(web: Web) -> None:
    web.off()  # so that the checkpoint's hash is known
    folder = web.extension.host.profiles()
    folder.mkdir(parents=True)
    path = folder / f"{web.extension.host.large_hash(StitchSettings())}.json"
    curves = {"sigmas": [0.1, 0.4, 0.5, 1.0], "change": [0.1, 0.1, 9.0, 9.0], "lasting": [1.0, 1.0, 1.0, 1.0]}
    path.write_text(json.dumps({"name": "measured here", "checkpoint": path.stem, **curves}))
    stitch = {"method": "Step cache"}
    try:
        known = web.call(stitch, steps=20)
        path.write_text("{")
        broken = web.call(stitch, steps=20)
    finally:
        path.unlink()
    generic = web.call(stitch, steps=20)
    assert known.infotext["HybridStitch profile"] == "measured here"
    assert known.infotext["HybridStitch plan"] != generic.infotext["HybridStitch plan"]
    assert torch.equal(pasted(web, parsed(web, known), steps=20).latents, known.latents), "without it as well"
    [told] = [comment for comment in broken.comments if path.name in comment]
    assert "not a profile" in told and "HybridStitch stopped" not in broken.infotext
    assert torch.equal(broken.latents, generic.latents)


def test_times_are_recorded_where_the_settings_page_asks_for_them(web: Web) -> None:
    assert "HybridStitch timings" not in web.on().infotext
    timed = web.on(settings={"hybridstitch_timings": True})
    kinds = [part.split(" ")[0] for part in timed.infotext["HybridStitch timings"].split(", ")]
    assert kinds == ["large", "masked", "small"]
