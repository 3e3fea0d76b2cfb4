"""What happens around a run: Reload UI and a change of checkpoint in its middle, rude neighbours, no memory left."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lib_hybridstitch.generation import summary
from lib_hybridstitch.webui.registration import register
from tests.hosts.conftest import SCRIPT
from tests.reliability.bench import STEPS, Bench, same
from tests.reliability.faults import ROOT


@contextmanager
def after_evaluation(bench: Bench, number: int, act: Callable[[], Any]) -> Iterator[None]:
    """Do something from another thread, as a click does, when an evaluation is over; the run waits for it."""
    done: list[threading.Thread] = []

    def watch(_params: Any) -> None:
        if bench.done == number and not done:
            done.append(threading.Thread(target=act))
            done[0].start()
            done[0].join()

    bench.host.callbacks.on_cfg_after_cfg(watch)
    try:
        yield
    finally:
        bench.host.callbacks.remove_callbacks_for_function(watch)
        assert done, "it happened"


@pytest.mark.parametrize("after", range(1, STEPS))
def test_scripts_unloaded_in_mid_run_leave_the_rest_to_the_large_model(bench: Bench, after: int) -> None:
    """As Reload UI does; the models stay until the run has ended, and are given back then."""
    extension = bench.web.extension
    outcome = bench.run(True, lambda: after_evaluation(bench, after, extension.close))
    assert outcome.raised is None
    assert same(outcome.latents, bench.expected[after])
    assert "reloaded its scripts" in outcome.infotext[summary.STOPPED]
    assert len(outcome.log) == 1
    assert extension.shelf._model is None, "given back when the run had ended"
    bench.run(True)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_models_released_in_mid_run_stay_until_its_end(bench: Bench) -> None:
    """By the panel's button, or since the WebUI has loaded another checkpoint."""
    outcome = bench.run(True, lambda: after_evaluation(bench, 2, bench.web.extension.release))
    assert same(outcome.latents, bench.on)
    assert bench.web.extension.shelf._model is None
    bench.run(True)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_checkpoint_changed_in_mid_run_is_left_as_it_was(bench: Bench) -> None:
    """The WebUI has let go of its model and holds no other yet; the run goes on with the one that it began with."""
    data = bench.host.module("modules.sd_models").model_data
    held = data.sd_model
    try:
        outcome = bench.run(True, lambda: after_evaluation(bench, 2, lambda: setattr(data, "sd_model", None)))
    finally:
        data.sd_model = held
    assert outcome.raised is None and same(outcome.latents, bench.on)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_generation_that_dies_before_sampling_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts cannot be encoded, say, after `process_batch`: nobody tells us that it is over."""
    processing = bench.host.module("modules.processing_base").StableDiffusionProcessing

    def broken(*_: Any) -> None:
        raise RuntimeError("the text encoder is out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(processing, "encode", broken)
        outcome = bench.run(True)
    assert "text encoder" in str(outcome.raised)
    held = weakref.ref(outcome.p)
    del outcome
    gc.collect()
    assert held() is None
    assert bench.afterwards() == []


def test_where_another_extension_takes_sampling_away_nothing_is_placed(bench: Bench) -> None:
    """It replaces `p.sample` without calling what was there, so that the end of sampling could not be noticed."""
    original = bench.web.extension.process_batch

    def rude(p: Any) -> None:
        original(p)
        p.sample = type(p).sample.__get__(p)

    bench.web.extension.process_batch = rude
    try:
        outcome = bench.run(True)
    finally:
        del bench.web.extension.process_batch
    assert same(outcome.latents, bench.off)
    assert "replaced the sampling" in outcome.infotext[summary.STOPPED]
    assert any("replaced the sampling" in comment for comment in outcome.comments)
    del outcome.p.sample
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_script_that_fails_while_it_loads_leaves_the_hosts_modules_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = bench.host.module("modules.script_callbacks")
    for name in ("on_before_ui", "on_ui_settings", "on_app_started", "on_cfg_denoiser", "on_model_loaded"):
        with monkeypatch.context() as patch:
            patch.setattr(scripts, name, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                register(SCRIPT.parents[1])
        assert bench.trace() == bench.clean


def test_a_small_checkpoint_that_is_cut_off_anywhere_costs_no_picture(bench: Bench, long_run: bool) -> None:
    """In its header and in and between tensors: one sentence, and the large model's picture."""
    folder = bench.host.module("modules.sd_checkpoints").folder[0]
    whole = (folder / "sd3.5_medium.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    tensors = [entry for name, entry in json.loads(whole[8 : 8 + header]).items() if name != "__metadata__"]
    ends = sorted(8 + header + tensor["data_offsets"][1] for tensor in tensors)
    cuts = [0, 1, 7, 8, 9, 8 + header // 2, 8 + header - 1, 8 + header]
    cuts += [cut + shift for cut in (ends if long_run else ends[:: len(ends) // 3]) for shift in (-1, 0)]
    plan, title = bench.plan, "cut"
    try:
        for cut in sorted({cut for cut in cuts if cut < len(whole)}):
            (folder / f"{title}.safetensors").write_bytes(whole[:cut])
            bench.host.sd_models.list_models()
            bench.plan = {**plan, "small_checkpoint": title}
            outcome = bench.run(True)
            assert same(outcome.latents, bench.off), f"cut at {cut}"
            assert "cut.safetensors" in outcome.infotext[summary.STOPPED], f"cut at {cut}"
            assert len(outcome.log) == 1
    finally:
        bench.plan = plan
        (folder / f"{title}.safetensors").unlink(missing_ok=True)
        bench.host.sd_models.list_models()
    bench.run(True)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


NO_MEMORY = """
import resource, torch
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.engine.evaluation import Evaluation, Side
from lib_hybridstitch.plans.plan import HybridRule, Plan, Segment, Stage
from lib_hybridstitch.engine.stitcher import Stitcher
from tests.networks import LARGE, MEDIUM, inputs, random_network

torch.set_num_threads(1)
large, small = random_network(LARGE), random_network(MEDIUM)
x, context, pooled = inputs(LARGE, rows=2, height=32, width=32)
call = Evaluation(x, torch.full((2,), 0.5), context, pooled, ((0, "cond"), (0, "uncond")))
wanted = Side(large).full(call, 2, True)
plan = Plan("x", (Segment(Stage.HYBRID, float("-inf")),), HybridRule(0.3))

def hungry(_call):  # the small model wants more than there is
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, resource.RLIM_INFINITY))
    return torch.zeros(2**30)

class Hungry(torch.nn.Module):
    def __getattr__(self, name):
        hungry(None)

stitched = Stitcher(Side(large), Side(Hungry()), plan)
got = stitched.velocity(call)
assert torch.equal(got, wanted), "the large model's"
assert "memory" in stitched.report.failure, stitched.report.failure
assert stitched.state.large_cache.bytes() == 0
print("finished")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited by Linux' rules")
def test_when_the_system_gives_no_more_memory_the_large_model_finishes() -> None:
    """A real allocation that the system refuses, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "finished", done.stderr[-2000:]
