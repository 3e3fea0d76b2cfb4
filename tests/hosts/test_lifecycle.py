"""However a generation ends, nothing of ours stays on the host's model."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_hybridstitch.engine import stitcher
from lib_hybridstitch.hosts import forge_loader
from lib_hybridstitch.hosts.forge import OURS, WRAPPER
from lib_hybridstitch.mmdit import kv_cache
from tests.hosts.conftest import HOSTS, SCRIPT, Web, in_forges


def trace(web: Web) -> dict[str, Any]:
    """Everything that a patch could hide in: the network's own attributes, the patcher's options, p's class."""
    network = web.host.network
    found: dict[str, Any] = {"network": sorted(vars(network)), "class": type(network).forward}
    if web.host.name != "a1111":
        unet = web.host.sd_model.forge_objects.unet
        found["wrapper"] = unet.model_options.get(WRAPPER)
        found["extra models"] = list(unet.extra_model_patchers_during_sampling)
        found["reserved"] = unet.extra_preserved_memory_during_sampling
    return found


@pytest.fixture
def clean(web: Web) -> dict[str, Any]:
    """The model's state before HybridStitch was ever on."""
    web.off()
    return trace(web)


def test_nothing_stays_after_a_stitched_run(web: Web, clean: dict[str, Any]) -> None:
    before = web.off()
    result = web.on()
    assert "sample" not in vars(result.p)
    assert trace(web) == clean
    assert torch.equal(web.off().latents, before.latents)


@pytest.mark.parametrize("after", [1, 3, 5])
def test_interrupt_ends_the_run_as_the_host_does(web: Web, clean: dict[str, Any], after: int) -> None:
    before = web.off()
    result = web.on(interrupt_after=after)
    assert len(result.latents) == 1
    assert "postprocess" in " ".join(result.hook_log)
    assert trace(web) == clean
    assert torch.equal(web.off().latents, before.latents)


@pytest.mark.parametrize("at", [0, 2], ids=["large stage", "probe"])
def test_an_exception_of_the_hosts_model_passes_and_leaves_no_trace(
    web: Web, clean: dict[str, Any], at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = web.off()
    evaluations: list[object] = []
    embedder = web.host.network.x_embedder
    original = embedder.forward

    def failing(x: torch.Tensor) -> torch.Tensor:
        evaluations.append(x)
        if len(evaluations) > at:
            raise RuntimeError("the device is gone")
        return original(x)

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "forward", failing)
        with pytest.raises(RuntimeError, match="the device is gone"):
            web.on({"preset": "Balanced"})
    assert trace(web) == clean
    assert torch.equal(web.off().latents, before.latents)


def test_our_own_failure_is_told_and_the_large_model_finishes(
    web: Web, clean: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *_: object) -> None:
        raise ValueError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr(stitcher.Stitcher, "_masked", broken)
        result = web.on()
    assert result.infotext["HybridStitch stopped"] == "ValueError: a bug of ours"
    assert any("a bug of ours" in comment for comment in result.comments)
    assert web.extension.last_run["stopped"] == "ValueError: a bug of ours"
    assert torch.isfinite(result.latents).all()
    assert trace(web) == clean


def test_caches_are_gone_when_sampling_ends(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []
    original = kv_cache.KVCache.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        held.append(weakref.ref(self))

    with monkeypatch.context() as patch:
        patch.setattr(kv_cache.KVCache, "__init__", noted)
        result = web.on()
    assert "masked" in result.infotext["HybridStitch"]
    gc.collect()
    assert held
    assert all(cache() is None or cache().bytes() == 0 for cache in held)


def test_reload_ui_in_mid_life(web: Web, clean: dict[str, Any]) -> None:
    stitched = web.on()
    first = web.extension
    web.host.reload_ui()
    assert web.extension is not first
    assert trace(web) == clean
    again = web.on()
    assert torch.equal(again.latents, stitched.latents)
    assert trace(web) == clean
    assert web.extension.last_run is not first.last_run


def test_a_patch_left_behind_is_healed_at_the_next_generation(web: Web, clean: dict[str, Any]) -> None:
    """As after a crash between the hooks: the accordion is off, and the run must be the host's own."""
    before = web.off()
    extension = web.extension
    p = web.host.processing(steps=8)
    p.scripts, p.script_args = web.host.runner("txt2img"), (0,)
    if web.host.name == "a1111":
        from lib_hybridstitch.hosts.patch import patch_instance

        patch_instance(web.host.network, "forward", lambda _: lambda *a, **k: 1 / 0)
    else:

        def orphan(*_: Any) -> None:
            raise ZeroDivisionError

        setattr(orphan, OURS, None)
        web.host.sd_model.forge_objects.unet.model_options[WRAPPER] = orphan
    extension.before_process()
    assert trace(web) == clean
    assert torch.equal(web.off().latents, before.latents)


@in_forges
def test_the_small_model_is_loaded_once_and_released_when_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.extension.release()
    loads: list[Any] = []
    original = forge_loader.load
    monkeypatch.setattr(forge_loader, "load", lambda file: loads.append(file) or original(file))
    for _ in range(3):
        web.on(n_iter=2)
    assert len(loads) == 1
    assert web.extension.release()
    assert not web.extension.release()
    web.on()
    assert len(loads) == 2


def test_models_go_when_the_checkpoint_changes_and_when_the_host_unloads(web: Web) -> None:
    web.on()
    web.host.callbacks.model_loaded_callback(web.host.sd_model)
    assert not web.extension.release(), "the change of checkpoint released it"
    web.on()
    web.host.sd_models.unload_model_weights()
    assert not web.extension.release(), "unloading released it"


def test_the_host_gets_its_unload_function_back(fresh: Web) -> None:
    ours = fresh.host.sd_models.unload_model_weights
    fresh.host.callbacks.script_unloaded_callback()
    assert fresh.host.sd_models.unload_model_weights is not ours
    assert fresh.host.sd_models.unload_model_weights.__module__.startswith("modules.")


def test_off_is_the_picture_of_a_host_without_the_extension(install: Any) -> None:
    for name in HOSTS:
        host = install(name)
        plain = host.generate(steps=6, batch_size=2)
        assert torch.equal(Web(host).off(steps=6, batch_size=2).latents, plain.latents), name


OTHER_EXTENSION = """
from modules import scripts, shared

class Other(scripts.Script):
    def title(self):
        return "Other"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def postprocess_image(self, p, pp, *args):
        shared.between(p)
"""


def test_another_generation_in_between_does_not_disturb(fresh: Web, tmp_path: Path) -> None:
    """As ADetailer does: a generation of its own, HybridStitch on, inside postprocess_image of another one."""
    plain = fresh.on(n_iter=2)
    file = tmp_path / "other" / "scripts" / "other.py"
    file.parent.mkdir(parents=True)
    file.write_text(OTHER_EXTENSION)
    inner: list[Any] = []

    def between(p: Any) -> None:
        if p.prompt != "inner":
            inner.append(fresh.on({"preset": "Fast"}, prompt="inner", steps=4))

    fresh.host.shared.between = between
    fresh.host.load_script(file)
    disturbed = fresh.on(n_iter=2)
    assert [result.infotext["HybridStitch preset"] for result in inner] == ["Fast", "Fast"]
    assert disturbed.swallowed == []
    assert disturbed.infotext["HybridStitch"] == plain.infotext["HybridStitch"]
    assert [image.tolist() for image in disturbed.images] == [image.tolist() for image in plain.images]


def test_the_script_file_is_the_one_the_host_loads() -> None:
    assert SCRIPT.is_file()
