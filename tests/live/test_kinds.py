"""Every kind of generation: img2img, inpainting, hires fix, batches, and the ways guidance is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.live.client import Picture, WebUI, distance, encoded, same

LONG = "a red apple on a wooden table in the warm light of a late afternoon, " * 8
GUIDANCE: dict[str, dict[str, Any]] = {
    "two prompts joined by AND": {"prompt": "a red apple AND a green table"},
    "weighted AND": {"prompt": "a red apple :1.2 AND a green table :0.4"},
    "a long prompt against a short negative one": {"prompt": LONG},
    "a short prompt against a long negative one": {"negative_prompt": LONG},
    "a long prompt AND a short one": {"prompt": f"{LONG} AND a green table"},
    "no negative prompt": {"negative_prompt": ""},
    "prompt editing": {"prompt": "a [red apple:green table:0.5]"},
    "alternating words": {"prompt": "a [red|green] apple"},
    "CFG 1": {"cfg_scale": 1},
    "NGMS": {"s_min_uncond": 4.0},
    "churn": {"s_churn": 5.0, "s_noise": 1.0},
    "not square": {"width": 192, "height": 64},
    "variation seed": {"subseed": 3, "subseed_strength": 0.3},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "skip early CFG": {"skip_early_cond": 0.4},
    "cond and uncond apart": {"batch_cond_uncond": False},
    "NGMS on every step": {"s_min_uncond": 4.0, "s_min_uncond_all": True},
    "live previews": {"live_previews_enable": True, "show_progress_every_n_steps": 1},
}


def _check(webui: WebUI, kind: str = "txt2img", **changes: Any) -> None:
    """All-large is the host's own picture, as near as the host repeats it; Paper and Balanced differ and finish."""
    reference = webui.reference(kind, **changes)
    assert reference.painted, reference.error
    large = webui.generate(webui.all_large(), kind, **changes)
    assert webui.shows_its_own(large, kind, **changes)
    for preset in ("Paper", "Balanced"):
        stitched = webui.generate(webui.settings(preset=preset), kind, **changes)
        assert stitched.painted, stitched.error
        assert stitched.stopped == ""
        assert set(stitched.steps()) != {"large"}
        assert not same(stitched, reference)


@pytest.mark.parametrize("case", GUIDANCE)
def test_prompts_and_guidance(webui: WebUI, case: str) -> None:
    _check(webui, **GUIDANCE[case])


@pytest.mark.parametrize("case", OPTIONS)
def test_options_of_the_webui(webui: WebUI, case: str) -> None:
    missing = OPTIONS[case].keys() - webui.get("/sdapi/v1/options").keys()
    if missing:
        pytest.skip(f"this WebUI has no option {', '.join(missing)}")
    with webui.options(**OPTIONS[case]):
        _check(webui, prompt=f"a red apple, {case}")


def _drawing(webui: WebUI) -> Picture:
    """A picture to begin with: two ramps and a disc."""
    size = webui.target.size
    y, x = np.mgrid[0:size, 0:size] / size
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1).astype(float)
    return (255 * np.stack([x, y, disc], -1)).astype(np.uint8)


def _quarter(webui: WebUI) -> Picture:
    """An inpaint mask: a square at the left edge, half the picture high."""
    size = webui.target.size
    mask = np.zeros((size, size, 3), np.uint8)
    mask[size // 4 : 3 * size // 4, : size // 2] = 255
    return mask


def _inpaint(webui: WebUI, only_masked: bool) -> dict[str, Any]:
    images = {"init_images": [encoded(_drawing(webui))], "mask": encoded(_quarter(webui))}
    return {**images, "inpaint_full_res": only_masked, "inpaint_full_res_padding": 8, "mask_blur": 0}


def test_img2img(webui: WebUI) -> None:
    init = encoded(_drawing(webui))
    _check(webui, "img2img", init_images=[init], denoising_strength=0.5, steps=2 * webui.target.steps)


@pytest.mark.parametrize("fill", range(4), ids=["fill", "original", "latent noise", "latent nothing"])
@pytest.mark.parametrize("only_masked", [False, True], ids=["whole picture", "only masked"])
def test_inpainting(webui: WebUI, only_masked: bool, fill: int) -> None:
    _check(webui, "img2img", **_inpaint(webui, only_masked), inpainting_fill=fill, denoising_strength=0.75)


def test_inpainting_masks_nothing_outside_what_is_painted(webui: WebUI) -> None:
    changes = {**_inpaint(webui, False), "inpainting_fill": 1, "denoising_strength": 0.9}
    webui.generate(webui.settings(preset="Paper"), "img2img", **changes)
    [done] = webui.last_run()["passes"]
    height, width = done["grid"]
    chosen = {token for step in done["steps"] for mask in step["mask"] or [] for token in mask}
    assert chosen
    assert all(token % width < width / 2 and height / 4 <= token // width < 3 * height / 4 for token in chosen)


def _hires(webui: WebUI) -> dict[str, Any]:
    upscaler = webui.get("/sdapi/v1/latent-upscale-modes")[0]["name"]
    hires: dict[str, Any] = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": upscaler, "denoising_strength": 0.7}
    if webui.forge_family:
        hires |= {"hr_additional_modules": ["Use same choices"], "hr_cfg": 4.0}
    return hires


def test_hires_fix(webui: WebUI) -> None:
    _check(webui, **_hires(webui))


@pytest.mark.parametrize(("passes", "stitched"), [("first", [False]), ("second", [True]), ("both", [False, True])])
def test_hires_passes_are_chosen(webui: WebUI, passes: str, stitched: list[bool]) -> None:
    result = webui.generate(webui.settings(preset="Paper", hires=passes), **_hires(webui))
    assert result.painted
    assert result.stopped == ""
    assert [done["hires"] for done in webui.last_run()["passes"]] == stitched
    assert not same(result, webui.reference(**_hires(webui)))


def test_hires_with_guidance_off_in_the_second_pass(webui: WebUI) -> None:
    if not webui.forge_family:
        pytest.skip("only the Forge family has a CFG scale of its own for the second pass")
    _check(webui, **{**_hires(webui), "hr_cfg": 1.0})


def _apart(webui: WebUI, args: dict[str, Any] | None) -> float:
    """Mean difference between two batches of two pictures and the same four pictures made one by one."""
    batches = webui.generate(args, batch_size=2, n_iter=2)
    assert len(batches.pictures) == 4
    assert batches.painted
    if args is not None:
        assert batches.stopped == ""
        assert batches.happened
    singles = [webui.generate(args, seed=7 + index).pictures[0] for index in range(4)]
    return max(distance(one, other) for one, other in zip(batches.pictures, singles, strict=True))


@pytest.mark.parametrize("preset", ["Paper", "Balanced"])
def test_a_batch_is_as_near_to_its_singles_as_the_hosts_own(webui: WebUI, preset: str) -> None:
    host = _apart(webui, None if webui.runs_large_itself else webui.all_large())
    assert _apart(webui, webui.settings(preset=preset)) <= 2 * host + 0.01


def test_a_batch_of_different_prompts(webui: WebUI) -> None:
    prompts = {"prompt": "a [red apple|green table]", "batch_size": 3}
    _check(webui, **prompts)


def test_a_refiner_takes_over_and_is_named(webui: WebUI, own_large: None) -> None:
    if not webui.target.other:
        pytest.skip("name a second checkpoint with --webui-other")
    changes = {"refiner_checkpoint": webui.target.other, "refiner_switch_at": 0.5}
    reference = webui.reference(**changes)
    assert reference.painted, reference.error
    stitched = webui.generate(webui.settings(preset="Paper"), **changes)
    assert stitched.painted, stitched.error
    assert any("refiner" in message for message in webui.last_run()["messages"])
    assert webui.shows_its_own(webui.generate(webui.all_large(), **changes), **changes)
    assert webui.shows_its_own(webui.generate())
