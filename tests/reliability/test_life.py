"""What happens around a run: Reload UI and a change of checkpoint in its middle, rude neighbours, no memory left."""

from __future__ import annotations

import gc
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


@pytest.mark.parametrize("after", [1, 3, 4, 7, STEPS - 1])
def test_scripts_unloaded_in_mid_run_leave_the_rest_to_the_large_model(bench: Bench, after: int) -> None:
    """As Reload UI does; the models stay until the run has ended, and are given back then."""
    extension = bench.web.extension
    outcome = bench.run(True, lambda _p: after_evaluation(bench, after, extension.close))
    assert outcome.raised is None
    assert same(outcome.latents, bench.expected(after))
    assert "reloaded its scripts" in outcome.infotext[summary.STOPPED]
    assert len(outcome.log) == 1
    assert bench.web.kept_small is None, "given back when the run had ended"
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_models_released_in_mid_run_stay_until_its_end(bench: Bench) -> None:
    """By the panel's button, or since the WebUI has loaded another checkpoint."""
    outcome = bench.run(True, lambda _p: after_evaluation(bench, 2, bench.web.extension.release))
    assert same(outcome.latents, bench.on)
    assert bench.web.kept_small is None
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_checkpoint_changed_in_mid_run_is_left_as_it_was(bench: Bench) -> None:
    """The WebUI has let go of its model and holds no other yet; the run goes on with the one that it began with."""
    data = bench.host.module("modules.sd_models").model_data
    held = data.sd_model
    try:
        outcome = bench.run(True, lambda _p: after_evaluation(bench, 2, lambda: setattr(data, "sd_model", None)))
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
    assert same(outcome.latents, bench.off) and outcome.swallowed == []
    assert "replaced p.sample" in outcome.infotext[summary.STOPPED]
    assert any("replaced p.sample" in comment for comment in outcome.comments)
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


NO_MEMORY = """
import resource, torch
from lib_hybridstitch.engine.evaluation import Evaluation, Model, Prediction
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.plans.plan import SMALL, Plan
from tests.networks import LARGE, inputs, random_network

torch.set_num_threads(1)
large = random_network(LARGE)
x, context, pooled = inputs(LARGE, rows=2, height=32, width=32)

def host(call):
    return Prediction(large(call.x, call.sigma * 1000, call.pooled, call.context))

class Hungry(torch.nn.Module):
    def __getattr__(self, name):  # the small model wants more than there is
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, resource.RLIM_INFINITY))
        return torch.zeros(2**30)

call = Evaluation(x, torch.full((2,), 0.5), context, pooled, ((0, "cond"), (0, "uncond")), host)
wanted = host(call).velocity
stitcher = Stitcher(Model(large), Model(Hungry()), Plan((SMALL,), (0.5,), "test"))
got = stitcher.velocity(call).velocity
assert torch.equal(got, wanted), "the large model's"
assert "memory" in stitcher.report.failure, stitcher.report.failure
print("finished")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited by Linux' rules")
def test_when_the_system_gives_no_more_memory_the_large_model_finishes() -> None:
    """A real allocation that the system refuses, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip() == "finished", done.stderr[-2000:]
