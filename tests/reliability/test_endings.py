"""Faults around sampling: of loading, of the host's functions, of telling, of undoing; and how users end a run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from lib_hybridstitch.generation import summary
from tests.reliability import faults
from tests.reliability.attempts import all_tried, at
from tests.reliability.bench import STEPS, Bench, same
from tests.reliability.faults import KINDS, Fault, Place, Source


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_an_error_of_whatever_is_called_of_the_host(bench: Bench, lasting: bool, long_run: bool) -> None:
    """The small model is loaded in each, so that its loading is among what fails."""
    source = faults.api(bench)
    bench.web.extension.release()
    found = faults.places(bench, source)
    chosen = found if long_run else faults.spread(found, 1 + lasting)
    chosen = [place for place in chosen if place != Place("State.__setattr__", 2)]  # it puts the host's words back
    all_tried(bench, at(chosen, source, "exception", "no memory", lasting=lasting), cold=True)


def test_the_record_beside_the_picture_may_refuse_to_be_written(bench: Bench) -> None:
    source = faults.Infotext()
    found = faults.places(bench, source)
    all_tried(bench, [*at(found, source, "exception"), *at(found[:1], source, "exception", lasting=True)])


@pytest.mark.parametrize("lost", ["log", "comments"])
def test_where_one_cannot_tell_the_others_do(bench: Bench, lost: str) -> None:
    """A log whose handler fails, as with no console; a host whose comments fail."""
    networks = faults.Networks(bench, "linear")
    place = faults.places(bench, networks)[-2]
    processing = bench.host.module("modules.processing_base").StableDiffusionProcessing
    second = faults.Log() if lost == "log" else faults.Functions((processing, "comment"))
    error, other = KINDS["exception"](), Fault(KINDS["no memory"](), lasting=True)
    site = "log" if lost == "log" else f"{processing.__name__}.comment"

    @contextmanager
    def during(p: Any) -> Any:
        with (
            faults.failing(networks, place, Fault(error))(p),
            faults.failing(second, Place(site, 1), other)(p),
        ):
            yield

    outcome = bench.run(True, during)
    error.__traceback__ = error.__context__ = other.error.__traceback__ = other.error.__context__ = None
    assert other.struck and outcome.raised is None and outcome.swallowed == []
    assert str(error) in outcome.infotext[summary.STOPPED]
    assert len([line for line in outcome.comments if str(error) in line]) == (lost == "log")
    assert len([line for line in outcome.log if str(error) in line]) == 1, "the other handlers heard it"
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


@pytest.mark.parametrize("way", ["interrupt", "skip", "stop"])
@pytest.mark.parametrize("after", [1, 4, 7, STEPS - 1])
def test_interrupts_end_a_run_as_they_do_without_us(bench: Bench, way: str, after: int, long_run: bool) -> None:
    """Between evaluations the host's own way; the latent is that of the last evaluation, ours or the large model's."""
    if not long_run and (after != 4 or way == "stop"):
        pytest.skip("with --long only")

    def count(_params: Any) -> None:
        if bench.done == after - 1:
            if way == "stop":
                bench.host.state.stopping_generation = True
            else:
                bench.host.state.interrupt() if way == "interrupt" else bench.host.state.skip()

    bench.host.callbacks.on_cfg_after_cfg(count)
    try:
        outcome = bench.run(True)
    finally:
        bench.host.callbacks.remove_callbacks_for_function(count)
        bench.host.state.stopping_generation = False
    assert outcome.raised is None
    assert summary.STOPPED not in outcome.infotext, "the user stopped it, nothing broke"
    if bench.host.name == "ersatz" and way != "stop":
        bench.load()  # it unloads its models then
        bench.run(True)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_fault_in_undoing_is_healed_by_the_next_run(bench: Bench) -> None:
    """The host's model refuses to be put back: what stays there does nothing, and the next run takes it off."""
    error = KINDS["exception"]()
    if bench.host.name == "a1111":
        source: Source = faults.Functions((type(bench.host.network), "__delattr__"))
    else:
        source = faults.Functions((type(bench.host.sd_model.forge_objects), "__setattr__"))
    found = faults.places(bench, source)
    undoing = found[-1]  # on Forge the first puts our patcher there
    outcome = bench.run(True, faults.failing(source, undoing, Fault(error)))
    error.__traceback__ = error.__context__ = None
    assert same(outcome.latents, bench.on) and outcome.raised is None and outcome.swallowed == []
    assert outcome.infotext[summary.STOPPED] == f"after the picture was finished: PlantedError: {error}"
    assert bench.trace() != bench.clean, "it was left there"
    assert bench.count()["Stitcher"] == 0, "and holds nothing"
    assert same(bench.run(False).latents, bench.off)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []
