"""What must be equal, bit for bit, in every host and every way of generating."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hosts.conftest import ALL_LARGE, HIRES, Web
from tests.standins import Result

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch": {"batch_size": 3},
    "Heun": {"sampler_name": "Heun"},
    "ancestral": {"sampler_name": "Euler a"},
    "second order": {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
    "SDE": {"sampler_name": "DPM++ SDE"},
    "CFG 1": {"cfg_scale": 1.0},
    "AND": {"prompt": "a frog AND a red apple"},
    "long prompt": {"prompt": "frog " * 90},
    "prompt editing": {"prompt": "a [frog:apple:0.5]"},
    "skip early CFG": {"settings": {"skip_early_cond": 0.4}},
    "NGMS": {"settings": {"s_min_uncond": 0.7}},
    "img2img": {"kind": "img2img", "denoising_strength": 0.6},
    "hires": HIRES,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def same(left: Result, right: Result) -> bool:
    """Whether two generations ended with the same latents."""
    return torch.equal(left.latents, right.latents)


@every_way
def test_off_and_all_large_are_the_hosts_own_picture_and_a_stitched_one_is_not(web: Web, way: dict[str, Any]) -> None:
    way = {"steps": 6, **way}
    before, large, stitched, after = web.off(**way), web.on(ALL_LARGE, **way), web.on(**way), web.off(**way)
    assert same(large, before) and same(after, before)
    assert not same(stitched, before) and bool(torch.isfinite(stitched.latents).all())
    assert "masked" in stitched.infotext["HybridStitch"]
    for result in (large, stitched):
        assert result.swallowed == [] and "HybridStitch stopped" not in result.infotext


@pytest.mark.parametrize("way", [{}, {"kind": "img2img", "denoising_strength": 0.99}], ids=["txt2img", "img2img"])
def test_a_mask_of_everything_is_the_large_model(web: Web, way: dict[str, Any]) -> None:
    whole = web.on({"mask_ratio": 1.0, "handoff_step": 0}, **way)
    assert same(whole, web.off(**way))


def test_a_mask_of_nothing_is_the_small_model_from_the_switch_on(web: Web) -> None:
    nothing = web.on({"switch_step": 3, "mask_ratio": 0.0})
    assert nothing.infotext["HybridStitch"] == "3 large, 5 small"
    assert same(nothing, web.on({"method": "SRDiffusion", "switch_step": 3}))


@pytest.mark.parametrize(
    "stitch",
    [{"preset": "Paper"}, {"preset": "Fast"}, {"method": "Step cache"}, {"method": "RAS", "switch_step": 3}],
    ids=["Paper", "Fast", "Step cache", "RAS"],
)
def test_a_batch_equals_its_singles(web: Web, stitch: dict[str, Any]) -> None:
    batch = web.on(stitch, batch_size=2, n_iter=2, seed=11)
    for index in range(4):
        single = web.on(stitch, seed=11 + index)
        torch.testing.assert_close(batch.latents[index : index + 1], single.latents, rtol=1e-3, atol=1e-4)


def test_all_small_is_the_small_checkpoint_as_the_main_one(web: Web) -> None:
    small = web.on({"plan": "1S"})
    assert small.infotext["HybridStitch"] == "8 small"
    if web.host.name == "a1111":
        return  # which cannot run this checkpoint by itself
    before = web.host.opts.sd_model_checkpoint
    web.host.choose(web.small)
    try:
        assert same(web.off(), small)
    finally:
        web.host.opts.sd_model_checkpoint = before
