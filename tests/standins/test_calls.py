"""Which calls of the model the stand-ins make: rows, text, inpainting, LoRA, refiner."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import standins
from tests.standins.probe import Install, everyone, log_of

# Rows

LONG = " ".join(["word"] * 15)
A1111_ROWS: list[tuple[dict[str, Any], list[tuple[int, int]]]] = [
    ({}, [(2, 22)] * 2),
    ({"cfg_scale": 1.0}, [(2, 22)] * 2),
    ({"prompt": "a AND b"}, [(3, 22)] * 2),
    ({"prompt": LONG}, [(1, 44), (1, 22)] * 2),
    ({"settings": {"batch_cond_uncond": False}}, [(1, 22)] * 4),
    ({"settings": {"skip_early_cond": 0.4}}, [(1, 22), (2, 22)]),
    ({"settings": {"s_min_uncond": 2.0, "s_min_uncond_all": True}}, [(1, 22)] * 2),
]
FORGE_ROWS: list[tuple[dict[str, Any], list[tuple[tuple[int, ...], int]]]] = [
    ({}, [((1, 0), 47)] * 2),
    ({"cfg_scale": 1.0}, [((0,), 47)] * 2),
    ({"prompt": "a AND b"}, [((1, 0, 0), 47)] * 2),
    ({"prompt": LONG}, [((0,), 58), ((1,), 47)] * 2),
    ({"settings": {"skip_early_cond": 0.4}}, [((0,), 47), ((1, 0), 47)]),
]


@pytest.mark.parametrize(("request_", "calls"), A1111_ROWS)
def test_a1111_hands_out_rows(install: Install, request_: dict[str, Any], calls: list[tuple[int, int]]) -> None:
    result = install("a1111").generate(steps=2, **request_)
    assert [(call.rows, call.context) for call in result.calls] == calls


@pytest.mark.parametrize(("request_", "calls"), FORGE_ROWS)
@pytest.mark.parametrize("name", ["forge", "ersatz"])
def test_forge_hands_out_chunks(install: Install, name: str, request_: dict[str, Any], calls: list[Any]) -> None:
    result = install(name).generate(steps=2, batch_size=2, **request_)
    assert [(call.chunks, call.context) for call in result.calls] == calls
    assert all(call.rows == 2 * len(call.chunks) for call in result.calls)


def test_short_memory_makes_forge_call_chunk_by_chunk(install: Install) -> None:
    host = install("forge")
    whole = host.generate(steps=2)
    memory = host.module("backend.memory_management")
    unet = host.sd_model.forge_objects.unet
    memory.standin.total = memory.module_size(unet.model) + int(unet.memory_required([1, 4, 16, 16]) * 1.5)
    split = host.generate(steps=2)
    assert [call.chunks for call in split.calls] == [(1,), (0,)] * 2
    assert torch.allclose(split.latents, whole.latents, atol=1e-5)


@everyone
def test_cond_rows_of_a_call_are_where_the_host_puts_them(install: Install, name: str) -> None:
    host, seen = install(name), []
    model = host.load()
    forward = model.forward

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["context"].clone())
        return forward(*args, **kwargs)

    model.forward = look
    host.generate(steps=1, prompt="cond", negative_prompt="uncond")
    text = {key: host.sd_model.get_learned_conditioning([key])["crossattn"] for key in ("cond", "uncond")}
    order = ("cond", "uncond") if name == "a1111" else ("uncond", "cond")
    assert torch.equal(seen[0], torch.cat([text[key] for key in order]))


@everyone
def test_prompt_editing_changes_the_text_on_the_way(install: Install, name: str) -> None:
    host, texts = install(name), []
    host.callbacks.on_cfg_denoiser(lambda params: texts.append(params.text_cond["vector"].sum().item()))
    host.generate(prompt="a [cat:dog:0.5]", steps=6)
    expected = [host.sd_model.get_learned_conditioning([text])["vector"].sum().item() for text in ("a cat", "a dog")]
    assert texts == pytest.approx([expected[0]] * 4 + [expected[1]] * 2)


# Inpainting, LoRA, refiner


@everyone
def test_inpainting_keeps_the_rest_and_blends_after_every_evaluation(install: Install, name: str) -> None:
    host = install(name)
    mask = torch.zeros(128, 128)
    mask[:, :64] = 1
    result = host.generate("img2img", steps=4, mask=mask)
    assert result.hook_log.count("on_mask_blend") == len(result.calls) + 1
    assert torch.equal(result.latents[..., 8:], result.p.init_latent[..., 8:])
    assert not torch.equal(result.latents[..., :8], result.p.init_latent[..., :8])
    assert result.p.nmask[0].sum() == 8 * 16 and result.p.nmask.shape == (4, 16, 16)


@everyone
def test_a_lora_acts_on_the_main_model_until_the_next_generation(install: Install, name: str) -> None:
    host = install(name)
    plain = host.generate("txt2img", "frog")
    changed = host.generate("txt2img", "frog<lora:green:0.5>")
    assert not torch.allclose(changed.latents, plain.latents, atol=1e-3)
    assert [one.name for one in host.module("networks").loaded_networks] == ["green"]
    if name != "a1111":
        (key,) = host.sd_model.forge_objects.unet.lora_patches
        assert key == ("models/Lora/green.safetensors", 0.5, 1.0, False)
    assert torch.equal(host.generate("txt2img", "frog").latents, plain.latents)


@everyone
def test_a_refiner_takes_the_patches_of_forges_unet_with_it(install: Install, name: str) -> None:
    files = {"sd3_medium": standins.a1111.SD3, "other": standins.a1111.SD3}
    host = install(name, checkpoints=files, large="sd3_medium")
    calls: list[float] = []

    def patch(p: Any) -> None:
        if name == "a1111":
            network = p.sd_model.model.diffusion_model
            network.forward = lambda x, t, y, context: (
                calls.append(0) or type(network).forward(network, x, t, y, context)
            )
            return
        unet = p.sd_model.forge_objects.unet.clone()
        unet.set_model_unet_function_wrapper(
            lambda apply, call: calls.append(0) or apply(call["input"], call["timestep"], **call["c"])
        )
        p.sd_model.forge_objects.unet = unet

    host.shared.act = patch
    result = host.generate(refiner_checkpoint="other", refiner_switch_at=0.5)
    assert result.infotext["Refiner"].startswith("other")
    announced = [entry[1] for entry in log_of(host) if entry[0] == "before sampling"]
    assert announced == [("c", "noise", "uc", "x")] + ([("x",)] if name == "ersatz" else [])
    assert len(calls) == {"a1111": 4, "forge": 2, "ersatz": 4}[name]
    assert host.sd_model.sd_checkpoint_info.name_for_extra == "other"
    host.shared.act = None
    assert host.generate().p.sd_model_name == "sd3_medium"
