"""What else acts on the model during a run: residuals, skipped layers, LoRA, other accelerators, memory, devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_hybridstitch.hosts import own
from tests.hosts.conftest import ALL_LARGE, HIRES, STEPS, Web, as_planned, in_forges
from tests.networks import LARGE, MEDIUM, random_network
from tests.standins import Host, write_checkpoint

Beside = Callable[[Callable[[Any], None]], Web]
OTHER_EXTENSION = """
from modules import scripts, shared

class Other(scripts.Script):
    def title(self):
        return "Other"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process_before_every_sampling(self, p, *args, **kwargs):
        unet = p.sd_model.forge_objects.unet.clone()
        shared.other(unet)
        p.sd_model.forge_objects.unet = unet
"""


@pytest.fixture(params=["forge, before us", "forge, after us", "ersatz, after us"])
def beside(request: pytest.FixtureRequest, install: Callable[..., Host], tmp_path: Path) -> Beside:
    """Forge with another extension that changes the patcher, before or after HybridStitch does."""
    name, when = request.param.split(", ")

    def load(change: Callable[[Any], None]) -> Web:
        host = install(name)
        web = Web(host)
        folder = tmp_path / "other" / "scripts"
        folder.mkdir(parents=True)
        (folder / "other.py").write_text(OTHER_EXTENSION)
        host.shared.other = change
        if when == "before us":
            host.scripts.script_files.insert(0, folder / "other.py")
            host.reload_ui()
        else:
            host.load_script(folder / "other.py")
        return web

    return load


class FakeControlNet:
    """Residuals for every joint block, as a ControlNet computes them, the same in each call."""

    previous_controlnet = None
    transformer_options: Any = None

    def get_control(self, x: torch.Tensor, t: torch.Tensor, cond: Any, batched: int) -> list[torch.Tensor]:
        """(rows, N, hidden) for each block."""
        tokens = (x.shape[-2] // 2) * (x.shape[-1] // 2)
        source = torch.Generator().manual_seed(3)
        residual = torch.randn(1, tokens, LARGE.hidden, generator=source) * 0.5
        return [residual.expand(x.shape[0], -1, -1)] * LARGE.depth


def test_controlnet_residuals_reach_the_large_model(beside: Beside) -> None:
    web = beside(lambda unet: unet.add_patched_controlnet(FakeControlNet()))
    off = web.off()
    large, stitched = web.on(ALL_LARGE), web.on()
    assert torch.equal(large.latents, off.latents)
    assert "HybridStitch stopped" not in stitched.infotext
    web.host.shared.other = lambda unet: None
    assert not torch.equal(web.on().latents, stitched.latents), "the residuals acted on masked steps too"


def skip_layer_guidance(unet: Any) -> None:
    """A third evaluation of the conditional rows without one block, as skip-layer guidance does."""
    from backend.sampling.sampling_function import calc_cond_uncond_batch

    def post_cfg(arguments: dict[str, Any]) -> torch.Tensor:
        options = arguments["model_options"].copy()
        options["transformer_options"] = {**options.get("transformer_options", {}), "skip_layers": [1]}
        model, x, sigma = arguments["model"], arguments["input"], arguments["sigma"]
        skipped, _ = calc_cond_uncond_batch(model, arguments["cond"], None, x, sigma, options)
        return arguments["denoised"] + 0.5 * (arguments["cond_denoised"] - skipped)

    unet.set_model_sampler_post_cfg_function(post_cfg)


def test_skip_layer_guidance_is_a_stream_of_its_own(beside: Beside) -> None:
    web = beside(skip_layer_guidance)
    off = web.off()
    assert len(off.calls) == 2 * STEPS
    assert torch.equal(web.on(ALL_LARGE).latents, off.latents)
    stitched = web.on()
    assert "HybridStitch stopped" not in stitched.infotext
    assert as_planned(stitched)


def test_another_wrapper_is_kept_in_force_and_told(beside: Beside) -> None:
    seen: list[Any] = []

    def wrap(unet: Any) -> None:
        previous = unet.model_options.get("model_function_wrapper")

        def wrapper(apply_model: Any, arguments: Any) -> torch.Tensor:
            seen.append(arguments["timestep"])
            if previous is not None:
                return previous(apply_model, arguments)
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        unet.set_model_unet_function_wrapper(wrapper)

    web = beside(wrap)
    off = web.off()
    seen.clear()
    large = web.on(ALL_LARGE)
    assert len(seen) == STEPS
    assert torch.equal(large.latents, off.latents)


@pytest.mark.parametrize("beside", ["forge, after us", "ersatz, after us"], indirect=True)
def test_a_wrapper_that_drops_ours_is_noticed(beside: Beside) -> None:
    def rude(unet: Any) -> None:
        unet.set_model_unet_function_wrapper(lambda apply, a: apply(a["input"], a["timestep"], **a["c"]))

    web = beside(rude)
    result = web.on()
    assert "another extension took its place" in result.infotext["HybridStitch stopped"]
    assert torch.equal(result.latents, web.off().latents)


def test_a_replaced_forward_pass_is_told(web: Web) -> None:
    network = web.host.load()
    original = network.forward

    def teacache(*args: Any, **kwargs: Any) -> torch.Tensor:
        return original(*args, **kwargs)

    teacache.__module__ = "sd_teacache"
    network.forward = teacache
    try:
        result = web.on()
        assert vars(network)["forward"] is teacache
    finally:
        del network.forward
    assert any("another accelerator (sd_teacache)" in comment for comment in result.comments)
    assert "HybridStitch stopped" not in result.infotext


def test_loras_of_the_large_model_are_named(web: Web) -> None:
    prompt = "a frog <lora:watercolour:0.8>"
    off = web.off(prompt=prompt)
    large = web.on(ALL_LARGE, prompt=prompt)
    assert torch.equal(large.latents, off.latents)
    alone = web.on({"method": "Step cache"}, prompt=prompt)
    assert not any("LoRA" in comment for comment in alone.comments), "no small model, nothing lost"
    stitched = web.on(prompt=prompt)
    assert any("LoRA watercolour acts on the large model only" in comment for comment in stitched.comments)
    assert "watercolour" not in str({key: value for key, value in stitched.infotext.items() if "Hybrid" in key})
    assert not any("LoRA" in comment for comment in web.on(prompt="a frog").comments)


def test_inpainting_leaves_tokens_outside_the_mask_to_the_cheap_model(web: Web) -> None:
    mask = torch.zeros(128, 128)
    mask[32:64, 32:64] = 1  # 4 × 4 latent pixels, 2 × 2 tokens
    result = web.on({"mask_ratio": 0.5}, kind="img2img", mask=mask, denoising_strength=0.99)
    assert "HybridStitch stopped" not in result.infotext
    masks = [step["mask"][0] for step in web.last_pass["steps"] if step["mask"]]
    assert masks
    width = web.last_pass["grid"][1]
    inside = {row * width + column for row in (2, 3) for column in (2, 3)}
    assert all(set(mask) <= inside for mask in masks)


@in_forges
def test_forges_memory_manager_knows_the_small_model_and_the_cache(web: Web) -> None:
    device = web.host.module("backend.memory_management").standin
    web.on()
    models, _, reserved = device.loads[-1]
    assert web.kept_small.patcher in models
    cache = web.last_pass["cache_bytes"]
    assert reserved >= cache > 0


@in_forges
def test_parked_models_leave_the_device_after_each_run(web: Web) -> None:
    manager = web.host.module("backend.memory_management")
    keep = web.on()
    kept = len(manager.current_loaded_models)
    park = web.on({"small_device": "park"})
    assert torch.equal(park.latents, keep.latents)
    assert len(manager.current_loaded_models) < kept + 1
    names = [loaded.model for loaded in manager.current_loaded_models]
    assert web.kept_small.patcher not in names


@pytest.mark.parametrize("device", ["park", "second"])
def test_where_the_small_model_stays_does_not_change_the_picture(
    web: Web, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = web.on()
    monkeypatch.setattr(web.host.shared.cmd_opts, "hybridstitch_second_device", "cpu", raising=False)
    moved = web.on({"small_device": device})
    assert "HybridStitch stopped" not in moved.infotext
    assert torch.equal(moved.latents, keep.latents)


def test_hires_passes_are_chosen(web: Web) -> None:
    happened = {
        choice: web.on({"hires": choice}, **HIRES).infotext["HybridStitch"] for choice in ("first", "second", "both")
    }
    assert "hires" not in happened["first"]
    assert happened["second"].startswith("hires")
    assert happened["both"] == f"{happened['first']}; {happened['second']}"


# SD3.5 on A1111


def sd35_on_a1111(install: Callable[..., Host], large: str) -> Web:
    """A1111 with a checkpoint of SD3.5-Large's architecture and SD3-medium."""
    return Web(install("a1111", large=large))


def test_sd35_large_runs_on_a1111_through_our_network(install: Callable[..., Host], tmp_path: Path) -> None:
    """The picture is that of the reference: our network, which agrees with diffusers', in the host's place."""
    web = sd35_on_a1111(install, "sd3_medium")
    wanted = {**ALL_LARGE, "large_checkpoint": "sd3.5_large"}
    ours = web.on(wanted)
    assert "HybridStitch stopped" not in ours.infotext
    assert not torch.equal(ours.latents, web.off().latents)
    folder = web.host.module("modules.sd_checkpoints").folder[0]
    from lib_hybridstitch.mmdit import checkpoint

    reference = checkpoint.load(folder / "sd3.5_large.safetensors")
    web.host.network.forward = lambda x, t, y, context: reference(x, t, y, context)
    try:
        expected = web.off()
    finally:
        del web.host.network.forward
    torch.testing.assert_close(ours.latents, expected.latents, rtol=1e-5, atol=1e-5)
    stitched = web.on({"large_checkpoint": "sd3.5_large"})
    assert "HybridStitch stopped" not in stitched.infotext
    assert as_planned(stitched)


def test_a_current_sd35_checkpoint_on_a1111_gets_the_right_network_by_itself(install: Callable[..., Host]) -> None:
    named = sd35_on_a1111(install, "sd3_medium").on({**ALL_LARGE, "large_checkpoint": "sd3.5_large"})
    web = sd35_on_a1111(install, "sd3.5_large")
    garbled, right = web.off(), web.on(ALL_LARGE)
    assert torch.equal(right.latents, named.latents)
    assert not torch.equal(garbled.latents, right.latents)


def test_our_own_large_model_is_loaded_once_and_released(
    install: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    web = sd35_on_a1111(install, "sd3_medium")
    loads: list[Any] = []
    original = own.OwnModel.__init__

    def noted(self: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        loads.append(file.title)
        original(self, file, *args, **kwargs)

    monkeypatch.setattr(own.OwnModel, "__init__", noted)
    for _ in range(2):
        web.on({"large_checkpoint": "sd3.5_large"})
    assert sorted(title.split(".saf")[0] for title in loads) == ["sd3.5_large", "sd3.5_medium"]
    assert web.extension.release()
    assert not web.extension.release()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_small_checkpoints_of_every_stored_type(web: Web, dtype: torch.dtype) -> None:
    folder = web.host.module("modules.sd_checkpoints").folder[0]
    write_checkpoint(folder / "stored.safetensors", random_network(MEDIUM, 4), prefix="", dtype=dtype)
    web.host.sd_models.list_models()
    result = web.on({"small_checkpoint": "stored"})
    assert "HybridStitch stopped" not in result.infotext
    assert torch.isfinite(result.latents).all()


def test_a_refiner_ends_the_stitching_and_is_told(web: Web) -> None:
    """The refiner replaces the whole model in mid-run; on ersatzForge the hook comes again then, without prompts."""
    refiner = "sd3_medium" if web.host.name == "a1111" else "sd3.5_large"
    way = {"refiner_checkpoint": refiner, "refiner_switch_at": 0.5}
    off = web.off(**way)
    result = web.on({"preset": "Balanced"}, **way)
    assert result.swallowed == []
    assert any("refiner" in comment for comment in result.comments)
    assert result.latents.shape == off.latents.shape
    assert torch.equal(web.off(**way).latents, off.latents)


def test_a_run_tells_whether_the_host_draws_with_the_large_model_by_itself(web: Web) -> None:
    web.on()
    assert web.last_pass["hosts_own"] is True
    if web.host.name == "a1111":
        web.on({"large_checkpoint": "sd3.5_large", "small_checkpoint": "sd3.5_medium"})
        assert web.last_pass["hosts_own"] is False
