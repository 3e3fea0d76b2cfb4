"""The stand-ins' models, checkpoints, loader and memory manager, as the hosts have them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import TokenGrid
from tests import standins
from tests.networks import LARGE, MEDIUM, SD3, inputs, random_network
from tests.standins import Host, write_checkpoint
from tests.standins.probe import Install, everyone, forges


def full(network: Any, x: torch.Tensor, sigma: torch.Tensor, context: Any, pooled: Any, **more: Any) -> torch.Tensor:
    patches = run(network, x, sigma, context, pooled, **more)
    return TokenGrid(x.shape[2] // 2, x.shape[3] // 2, 2).to_latent(patches)


# Networks


@pytest.mark.parametrize("large", ["sd3.5_large", "sd3.5_medium"])
@forges
def test_forges_network_computes_what_ours_does(install: Install, name: str, large: str) -> None:
    host = install(name, large=large)
    network, config = host.load(), LARGE if large == "sd3.5_large" else MEDIUM
    ours = random_network(config, len(large))
    x, context, pooled = inputs(config)
    sigma = torch.tensor([0.7, 0.7])
    with torch.inference_mode():
        theirs = network(x, sigma * 1000, y=pooled, context=context)
        assert torch.allclose(theirs, ours(x, sigma * 1000, pooled, context), atol=1e-5)
        assert torch.equal(theirs, full(network, x, sigma, context, pooled))


@forges
def test_forges_network_leaves_layers_out_and_adds_residuals(install: Install, name: str) -> None:
    network = install(name).load()
    x, context, pooled = inputs(LARGE)
    sigma, control = torch.tensor([0.7, 0.7]), [torch.randn(2, 24, 192)]
    options = {"transformer_options": {"skip_layers": [1]}, "control": control}
    with torch.inference_mode():
        theirs = network(x, sigma * 1000, y=pooled, context=context, **options)
        expected = full(network, x, sigma, context, pooled, skip_layers=[1], control=control)
        assert torch.equal(theirs, expected)
        assert not torch.allclose(theirs, network(x, sigma * 1000, y=pooled, context=context))


@pytest.mark.parametrize(("name", "spoils"), [("forge", False), ("ersatz", True)])
def test_ersatz_changes_what_its_blocks_are_given(install: Install, name: str, spoils: bool) -> None:
    network = install(name).load()
    with torch.inference_mode():
        x, c = torch.randn(1, 24, 192), torch.randn(1, 192)
        side, before = network.joint_blocks[0].x_block, x.clone()
        qkv, rest = side.pre_attention(x, c)
        queries = torch.randn(1, 24, 3, 64)
        kept = queries.clone()
        side.attn.ln_q(queries)
        scale = rest[3].clone()
        side.post_attention(qkv[0], *rest)
        found = [not torch.equal(now, then) for now, then in ((x, before), (rest[3], scale), (queries, kept))]
    assert found == [spoils] * 3


def test_a1111_has_no_norms_of_queries_and_keys_and_says_nothing(install: Install) -> None:
    host = install("a1111", large="sd3.5_large")
    assert host.generate().latents.isfinite().all()
    assert not any("ln_q" in name for name, _ in host.network.named_parameters())
    assert isinstance(host.network, MMDiT) and host.network.dtype == torch.float32
    x, context, pooled = inputs(LARGE)
    right = random_network(LARGE, len("sd3.5_large"))(x, torch.tensor([700.0, 700.0]), pooled, context)
    assert not torch.allclose(host.network(x, torch.tensor([700.0, 700.0]), y=pooled, context=context), right)


def test_a1111_cannot_load_sd35_medium(install: Install) -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        install("a1111", large="sd3.5_medium").generate()


def test_a1111_calls_an_instances_own_forward(install: Install) -> None:
    host, seen = install("a1111"), []
    network = host.load()
    plain = host.generate(steps=1)

    def forward(x: Any, t: Any, y: Any = None, context: Any = None) -> Any:
        seen.append((t.tolist(), t.dtype, torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return type(network).forward(network, x, t, y, context)

    network.forward = forward
    assert torch.equal(host.generate(steps=1).latents, plain.latents)
    assert seen == [([1000.0, 1000.0], torch.float32, False, False)]


# Forge's unet


@forges
def test_a_wrapper_sees_the_call_and_is_gone_after_the_pass(install: Install, name: str) -> None:
    host, seen = install(name), []
    plain = host.generate(steps=2)
    host.scripts.scripts_txt2img.process_before_every_sampling = lambda p, **kwargs: wrap(p)

    def wrap(p: Any) -> None:
        unet = p.sd_model.forge_objects.unet.clone()

        def wrapper(apply_model: Any, call: dict[str, Any]) -> Any:
            seen.append((sorted(call), call["cond_or_uncond"], sorted(call["c"]), call["timestep"].tolist()))
            assert torch.is_inference_mode_enabled()
            assert call["c"]["transformer_options"]["cond_or_uncond"] == [1, 0]
            return apply_model(call["input"], call["timestep"], **call["c"])

        unet.set_model_unet_function_wrapper(wrapper)
        p.sd_model.forge_objects.unet = unet

    assert torch.equal(host.generate(steps=2).latents, plain.latents)
    keys = ["c", "cond_or_uncond", "input", "timestep"], [1, 0], ["c_crossattn", "transformer_options", "y"]
    assert seen == [(*keys, [1.0, 1.0]), (*keys, [0.75, 0.75])]
    del host.scripts.scripts_txt2img.process_before_every_sampling
    host.generate(steps=2)
    assert len(seen) == 2


@forges
def test_clones_share_the_model_and_copy_options_deeply(install: Install, name: str) -> None:
    host = install(name)
    host.load()
    unet = host.sd_model.forge_objects.unet

    class Engine:
        def call(self) -> None:
            """A bound method drags its owner along."""

    engine = Engine()
    unet = unet.clone()
    unet.set_model_unet_function_wrapper(engine.call)
    twin = unet.clone()
    assert twin.model is unet.model and twin.is_clone(unet)
    assert twin.model_options["model_function_wrapper"].__self__ is not engine
    closure = copy.deepcopy
    unet.set_model_unet_function_wrapper(closure)
    assert unet.clone().model_options["model_function_wrapper"] is closure


@forges
def test_a_controlnets_residuals_reach_the_call(install: Install, name: str) -> None:
    host = install(name)
    plain = host.generate(steps=1)

    class Control:
        previous_controlnet = None

        def get_control(self, x: Any, t: Any, cond: Any, count: int) -> Any:
            return [torch.ones(x.shape[0], 64, 192)]

    def hook(p: Any, **kwargs: Any) -> None:
        unet = p.sd_model.forge_objects.unet.clone()
        unet.add_patched_controlnet(Control())
        p.sd_model.forge_objects.unet = unet

    host.scripts.scripts_txt2img.process_before_every_sampling = hook
    assert not torch.allclose(host.generate(steps=1).latents, plain.latents)


# A second model beside the current one


def second(host: Host, path: str) -> Any:
    """Load a transformer by the host's own loader, without touching the current one."""
    loader, utils = host.module("backend.loader"), host.module("backend.utils")
    tensors = loader.preprocess_state_dict(utils.load_torch_file(path))
    guess = host.module("huggingface_guess").guess(tensors)
    guess.clip_target, guess.model_type = guess.clip_target(tensors), guess.model_type(tensors)
    parts = host.module("backend.state_dict").try_filter_state_dict(tensors, guess.unet_key_prefix)
    assert not tensors
    model = loader.load_huggingface_component(
        guess, "transformer", "diffusers", "SD3Transformer2DModel", guess.huggingface_repo, parts
    )
    prediction = host.module("backend.modules.k_prediction").PredictionDiscreteFlow(shift=3.0)
    patcher = host.module("backend.patcher.unet").UnetPatcher
    return patcher.from_model(model=model, diffusers_scheduler=None, k_predictor=prediction, config=guess)


@pytest.mark.parametrize(("prefix", "dtype"), [("model.diffusion_model.", None), ("", torch.float8_e4m3fn)])
@forges
def test_forges_loader_builds_a_second_model(
    install: Install, name: str, prefix: str, dtype: Any, tmp_path: Path
) -> None:
    host = install(name)
    host.load()
    before = host.sd_model
    path = write_checkpoint(tmp_path / "second.safetensors", MEDIUM, prefix, dtype)
    patcher = second(host, str(path))
    assert host.sd_model is before
    assert patcher.model.storage_dtype == (dtype or torch.float32)
    assert patcher.model.computation_dtype == torch.float32
    x, context, pooled = inputs(MEDIUM)
    sigma = torch.tensor([0.7, 0.7])
    denoised = patcher.model.apply_model(x, sigma, c_crossattn=context, y=pooled, transformer_options={})
    ours = random_network(MEDIUM, len("second"))(x, sigma * 1000, pooled, context)
    assert torch.allclose(denoised, x - 0.7 * ours, atol=1e-5 if dtype is None else 0.5)


def test_the_pages_storage_dtype_overrules_the_second_file_too(install: Install, tmp_path: Path) -> None:
    host = install("forge")
    host.generate(settings={"forge_unet_storage_dtype": "float8-e4m3fn"})
    assert host.network.storage_dtype == torch.float8_e4m3fn
    path = write_checkpoint(tmp_path / "second.safetensors", MEDIUM)
    assert second(host, str(path)).model.storage_dtype == torch.float8_e4m3fn
    host.module("backend.args").dynamic_args["forge_unet_storage_dtype"] = None
    assert second(host, str(path)).model.storage_dtype == torch.float32


def test_registered_models_are_loaded_together_and_memory_is_kept(install: Install, tmp_path: Path) -> None:
    host = install("forge")
    host.generate()
    memory = host.module("backend.memory_management")
    small = second(host, str(write_checkpoint(tmp_path / "second.safetensors", MEDIUM)))

    def hook(p: Any, **kwargs: Any) -> None:
        unet = p.sd_model.forge_objects.unet.clone()
        unet.add_extra_model_patcher_during_sampling(small)
        unet.add_extra_preserved_memory_during_sampling(123)
        p.sd_model.forge_objects.unet = unet

    host.scripts.scripts_txt2img.process_before_every_sampling = hook
    host.generate()
    models, _, preserved = memory.standin.loads[-1]
    assert models[1] is small and preserved == 123
    assert [loaded.model for loaded in memory.current_loaded_models][:1] == [small]
    memory.unload_all_models()
    assert small in memory.standin.evicted and memory.current_loaded_models == []


def test_a_model_is_evicted_when_there_is_no_room(install: Install, tmp_path: Path) -> None:
    host = install("forge")
    host.generate()
    memory = host.module("backend.memory_management")
    small = second(host, str(write_checkpoint(tmp_path / "second.safetensors", MEDIUM)))
    memory.load_models_gpu([small])
    assert memory.standin.evicted == []
    memory.standin.total = memory.module_size(host.sd_model.forge_objects.unet.model) + 1
    memory.load_models_gpu([host.sd_model.forge_objects.unet])
    assert memory.standin.evicted == [small]


def test_ersatz_unloads_everything_on_interrupt(install: Install) -> None:
    host = install("ersatz")
    host.generate(steps=4, interrupt_after=1)
    assert host.module("backend.memory_management").current_loaded_models == []


# Checkpoints


@everyone
def test_the_list_finds_parts_of_names_and_changes_titles_after_loading(install: Install, name: str) -> None:
    host = install(name, checkpoints={"sd3": SD3, "sd3_other": SD3}, large="sd3")
    models = host.sd_models
    assert models.checkpoint_tiles() == ["sd3.safetensors", "sd3_other.safetensors"]
    find = models.get_closet_checkpoint_match
    assert find("sd3").name == "sd3.safetensors"
    assert find("d3_o").name_for_extra == "sd3_other"
    assert find("d3").name_for_extra == "sd3" and find("nothing") is None and find("") is None
    assert find("sd3_other [0123456789]").name_for_extra == "sd3_other"
    info = find("sd3")
    assert info.shorthash is None
    host.generate(steps=1)
    assert info.title == f"sd3.safetensors [{info.shorthash}]" and len(info.shorthash) == 10
    assert list(models.checkpoints_list) == [info.title, "sd3_other.safetensors"]
    assert find("sd3.safetensors") is info and find(info.shorthash) is info


@everyone
def test_new_files_appear_after_a_refresh(install: Install, name: str, tmp_path: Path) -> None:
    host = install(name)
    write_checkpoint(tmp_path / "models" / "Stable-diffusion" / "sub" / "new.safetensors", SD3)
    assert host.sd_models.get_closet_checkpoint_match("new") is None
    host.shared.refresh_checkpoints()
    assert host.sd_models.get_closet_checkpoint_match("new").name == "sub/new.safetensors"


@everyone
def test_nothing_is_left_behind(name: str, tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        family = standins.a1111.install if name == "a1111" else standins.forge.install
        host = family(patch, tmp_path, **({"like": name} if name != "a1111" else {}))
        host.start()
        assert host.generate(steps=1).latents.isfinite().all()
    ours = {"modules", "backend", "modules_forge", "huggingface_guess", "networks", "gradio"}
    assert not {module for module in set(sys.modules) - before if module.split(".")[0] in ours}
    assert sys.path == path and not any(type(finder).__name__ == "Finder" for finder in sys.meta_path)
