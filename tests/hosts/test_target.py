"""A wished speed-up inside a generation: what it comes to, what is recorded, and that it can be made again."""

from __future__ import annotations

import pytest
import torch

from lib_hybridstitch.settings import StitchSettings, specs
from lib_hybridstitch.webui.api import plan
from tests.hosts.conftest import STEPS, Web

TARGET = specs()["target_speedup"].infotext
SHARE = StitchSettings().full_share
WISH = {"preset": "Balanced", "target_speedup": 1.3}


def test_the_run_keeps_to_what_was_foretold(web: Web) -> None:
    web.on(WISH)
    aimed, [done] = web.extension.last_run["aimed"], web.extension.last_run["passes"]
    assert done["forecast"] >= 0.99 * 1.3
    assert aimed["target_speedup"] == 0 and aimed["full_share"] != SHARE
    full = [step for step in done["steps"] if step["tokens_large"] == step["tokens"]]
    assert 0 < len(full) < STEPS


def test_what_the_target_came_to_is_recorded_and_makes_the_same_picture(web: Web) -> None:
    wished = web.on(WISH)
    assert TARGET not in wished.infotext
    assert wished.infotext["HybridStitch aimed at"].startswith("1.3x, foretold ")
    again = web.on({"preset": "Custom", **web.extension.last_run["aimed"], "enabled": True})
    assert torch.equal(again.latents, wished.latents)
    recorded = {key: value for key, value in wished.infotext.items() if key != "HybridStitch aimed at"}
    assert recorded == again.infotext


def test_no_key_of_the_preset_is_left_where_the_target_replaced_it(web: Web) -> None:
    wished = web.on({"preset": "Quality", "target_speedup": 1.6})
    assert wished.infotext["HybridStitch preset"] == "Custom"
    kept = wished.infotext.get(specs()["full_share"].infotext, str(SHARE))
    assert float(kept) == web.extension.last_run["aimed"]["full_share"]


def test_a_target_out_of_reach_is_said(web: Web) -> None:
    told = web.on({"preset": "Balanced", "target_speedup": 4.0})
    assert any("4x is out of reach" in comment for comment in told.comments)


def test_a_target_that_asks_for_nothing_names_itself(web: Web) -> None:
    told = web.on({"preset": "Quality", "target_speedup": 0.5})
    [said] = [comment for comment in told.comments if "speed-up" in comment or "not faster" in comment]
    assert said == "HybridStitch: A target_speedup of 0.5 comes to no speed-up; raise it."


def test_the_page_foretells_what_the_run_does(web: Web) -> None:
    request = {"steps": STEPS, "width": 128, "height": 128, "cfg_scale": 3.0, "sampler": "Euler", "scheduler": "Simple"}
    web.on(WISH, cfg_scale=3.0)
    web.extension.paces.clear()
    told = plan(web.extension, {**request, "settings": {"enabled": True, "small_checkpoint": web.small, **WISH}})
    assert told["settings"]["target_speedup"] == 0
    assert told["settings"]["full_share"] == web.extension.last_run["aimed"]["full_share"]
    [done] = web.extension.last_run["passes"]
    assert told["speedup"] == pytest.approx(done["forecast"])


def test_hires_keeps_to_the_first_passes_choice(web: Web) -> None:
    web.on(WISH, enable_hr=True)
    assert len(web.extension.last_run["passes"]) == 2
    assert web.extension.last_run["aimed"]["full_share"] > 0
