"""Whatever goes wrong on our side, the large model finishes the picture, and the reason is told once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import Evaluation, Model, Prediction
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.model import MMDiT
from tests.engine.passes import both, large_model, large_network, latents, letters, small_network, stitcher
from tests.networks import MEDIUM, random_network


def held_tensors(engine: Stitcher) -> list[Tensor]:
    """Every tensor that an engine keeps, beside its models, its report and what it was given."""
    given = ("large", "small", "plan", "report", "region")
    stack: list[Any] = [value for name, value in vars(engine).items() if name not in given]
    seen: set[int] = set()
    found = []
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, (type, MMDiT)):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            found.append(thing)
        elif not callable(thing):
            stack.extend(gc.get_referents(thing))
    return found


def raising(error: BaseException) -> Callable[[Evaluation], Prediction]:
    def own_pass(call: Evaluation) -> Prediction:
        raise error

    return own_pass


def nan_network() -> MMDiT:
    network = random_network(MEDIUM)
    network.final_layer.linear.bias.fill_(float("nan"))
    return network


def is_the_large_model(engine: Stitcher, indices: range) -> bool:
    """Whether steps of the plan are now the large model's full passes, bit for bit."""
    x = latents()[0]
    calls = [both(x, engine.plan.sigmas[index]) for index in indices]
    return all(torch.equal(engine.velocity(call).velocity, call.full_pass(call).velocity) for call in calls)


@pytest.mark.parametrize(
    ("plan", "small", "at", "reason"),
    [
        ("2L 2S", Model(small_network(), raising(RuntimeError("no more"))), 2, "RuntimeError: no more"),
        ("2L 2S", Model(small_network(), lambda call: Prediction(call.x / 0)), 2, "stitched velocity at sigma 0.750"),
        ("2L M30 S", Model(nan_network()), 1, "small model's velocity at sigma 0.900"),
        ("2L M30 S score=change", Model(nan_network()), 2, "stitched velocity at sigma 0.750 is not finite"),
        ("2L 2M30", Model(small_network(), device=torch.device("meta")), 1, "meta"),
    ],
)
def test_the_large_model_finishes_what_we_cannot(plan: str, small: Model, at: int, reason: str) -> None:
    engine = stitcher(plan, small=small)
    for index in range(4):
        done = is_the_large_model(engine, range(index, index + 1))
        assert (reason in engine.report.failure) is (index >= at)
        assert done or index < at
    assert letters(engine) == "LLLL" and not engine.report.masks
    assert [record.evaluation for record in engine.report.evaluations()] == [0, 1, 2, 3]
    assert not held_tensors(engine)


def test_what_the_full_pass_raises_passes_untouched_and_it_is_called_once() -> None:
    calls: list[Evaluation] = []
    error = ZeroDivisionError("the host's own")

    def full_pass(call: Evaluation) -> Prediction:
        calls.append(call)
        raise error

    engine = stitcher("2L X M30")
    with pytest.raises(ZeroDivisionError) as raised:
        engine.velocity(both(latents()[0], 1.0, full_pass=full_pass))
    assert raised.value is error and len(calls) == 1 and not engine.report.failure


def test_interrupts_are_never_caught() -> None:
    engine = stitcher("3S", small=Model(small_network(), raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        engine.velocity(both(latents()[0], 1.0))
    assert not engine.report.failure


def test_another_thread_may_ask_to_stop_and_is_heard_at_the_next_call() -> None:
    engine, x = stitcher("2L 4M30"), latents()[0]
    for sigma in engine.plan.sigmas[:3]:
        engine.velocity(both(x, sigma))
    assert letters(engine) == "LLM"
    for reason in ("scripts were reloaded", "and again"):
        asking = threading.Thread(target=engine.ask_to_stop, args=(reason,))
        asking.start()
        asking.join()
    assert not engine.report.failure and held_tensors(engine), "nothing is taken from under a running call"
    assert is_the_large_model(engine, range(3, 6))
    assert engine.report.failure == "scripts were reloaded" and not held_tensors(engine)


def test_the_first_reason_stands() -> None:
    engine = stitcher("2L 4M30")
    engine.give_up("one")
    engine.give_up("two")
    engine.ask_to_stop("three")
    assert is_the_large_model(engine, range(2))
    assert engine.report.failure == "one"


@pytest.mark.parametrize("plan", ["2L X M30 X M30x S s X", "3L C X C", "2L 2M30x score=ras", "2L 2M30 score=change"])
def test_the_end_of_a_pass_frees_everything_and_leaves_the_report(plan: str) -> None:
    engine, x = stitcher(plan), latents()[0]
    for sigma in engine.plan.sigmas:
        engine.velocity(both(x, sigma))
    assert held_tensors(engine)
    before = engine.report.evaluations()
    engine.finish()
    engine.finish()
    assert not held_tensors(engine)
    assert engine.report.evaluations() == before and not engine.report.failure


def test_a_plan_of_large_and_small_steps_alone_keeps_nothing() -> None:
    engine, x = stitcher("3L 3S"), latents()[0]
    for sigma in engine.plan.sigmas:
        engine.velocity(both(x, sigma))
        assert not held_tensors(engine)


def test_it_is_known_whether_the_engine_was_ever_called() -> None:
    engine = Stitcher(Model(large_network()), None, stitcher("2L").plan)
    assert not engine.called
    engine.velocity(both(latents()[0], 1.0, full_pass=large_model().full_pass))
    assert engine.called
