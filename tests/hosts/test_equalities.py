"""What must be equal, bit for bit, in every host and every way of generating."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hosts.conftest import Web
from tests.standins import Result

ALL_LARGE = {"switch_step": 150, "handoff_step": 0}
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
    "hires": {"enable_hr": True, "denoising_strength": 0.6, "hr_scale": 1.5, "hr_cfg": 3.0},
}


def same(left: Result, right: Result) -> bool:
    """Whether two generations ended with the same latents."""
    return torch.equal(left.latents, right.latents)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_all_large_is_the_hosts_own_picture(web: Web, way: dict[str, Any]) -> None:
    off = web.off(**way)
    large = web.on(ALL_LARGE, **way)
    assert large.swallowed == []
    assert "HybridStitch stopped" not in large.infotext
    assert same(large, off)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_is_stitched_and_off_is_the_same_before_and_after(web: Web, way: dict[str, Any]) -> None:
    before = web.off(**way)
    stitched = web.on(**way)
    assert stitched.swallowed == []
    assert "HybridStitch stopped" not in stitched.infotext
    assert torch.isfinite(stitched.latents).all()
    assert not same(stitched, before), "something was stitched"
    assert "hybrid" in stitched.infotext["HybridStitch"]
    assert same(web.off(**way), before)


def test_off_is_the_picture_of_a_host_without_the_extension(install: Any) -> None:
    for name in ("a1111", "forge", "ersatz"):
        host = install(name)
        plain = host.generate(steps=6, batch_size=2)
        assert torch.equal(Web(host).off(steps=6, batch_size=2).latents, plain.latents), name


@pytest.mark.parametrize("preset", ["Paper", "Quality", "Balanced", "Fast"])
def test_a_batch_equals_its_singles(web: Web, preset: str) -> None:
    batch = web.on({"preset": preset}, batch_size=2, n_iter=2, seed=11)
    for index in range(4):
        single = web.on({"preset": preset}, seed=11 + index)
        torch.testing.assert_close(batch.latents[index : index + 1], single.latents, rtol=1e-3, atol=1e-4)


def test_split_calls_paint_the_picture_of_joint_ones(a1111: Web) -> None:
    joint = a1111.on()
    split = a1111.on(settings={"batch_cond_uncond": False})
    assert len(split.calls) == 2 * len(joint.calls)
    torch.testing.assert_close(split.latents, joint.latents, rtol=1e-3, atol=1e-4)


def test_all_small_is_the_small_checkpoint_as_the_main_one(forge: Web, install: Any, tmp_path: Any) -> None:
    settings = {"method": "SRDiffusion", "switch_step": 0, "handoff_step": 0}
    small = forge.on(settings)
    assert small.infotext["HybridStitch"] == "8 small"
    forge.host.opts.sd_model_checkpoint = forge.host.sd_models.get_closet_checkpoint_match(forge.small).title
    assert same(forge.off(), small)
