"""Predictions from measured times, by numbers that can be checked by hand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.plans.plan import Kind
from lib_hybridstitch.prediction.operations import FULL, Work
from lib_hybridstitch.prediction.timings import KEPT_PASSES, KEPT_SETUPS, Times, Timings, step_ms
from tests.networks import MEDIUM
from tests.prediction.setups import TINY

SMALL, PROBE, MASKED, CFG_CACHED = Work(0.0, 1.0), Work(1.0, 1.0), Work(0.3, 1.0), Work(1.0, 0.0, 0.5)


def record(kind: Kind, large: float, small: float, ms: float, cached: int = 0) -> Record:
    """An evaluation of four rows, by the share of all tokens that each model computed."""
    return Record(0, kind, 0.5, 4, TINY.tokens, large * TINY.tokens, small * TINY.tokens, cached, ms)


PASS = [
    *(record(Kind.LARGE, 1, 0, ms) for ms in (90.0, 40.0, 40.0)),
    record(Kind.LARGE, 1, 1, 60.0),
    *(record(Kind.MASKED, 0.3, 1, ms) for ms in (30.0, 34.0, 32.0)),
    record(Kind.EXTRAPOLATED, 0, 0, 0.5),
    record(Kind.SMALL, 0, 1, 16.0),
    record(Kind.CFG_CACHED, 0.5, 0, 23.0, cached=2),
]


def learnt(*records: Record) -> Times:
    timings = Timings()
    timings.learn(TINY, records)
    times = timings.of(TINY)
    assert times is not None
    return times


def test_every_step_costs_the_median_of_its_sort() -> None:
    expected = {FULL: 40, PROBE: 60, MASKED: 32, Work(0.0, 0.0): 0.5, SMALL: 16, CFG_CACHED: 23}
    assert learnt(*PASS) == expected
    assert {work: step_ms(learnt(*PASS), TINY, work) for work in expected} == expected


def test_a_step_that_was_never_measured_is_counted_in_relation_to_a_large_one() -> None:
    times = learnt(*PASS[:3])
    for work in (SMALL, MASKED, CFG_CACHED, Work(0.25, 0.0)):
        assert step_ms(times, TINY, work) == pytest.approx(40 * TINY.flops(work) / TINY.flops(FULL))
    assert step_ms(times, TINY, CFG_CACHED) == 20
    assert step_ms(times, TINY, Work(0.0, 0.0)) == 0


def test_a_masked_step_of_another_ratio_lies_on_the_line_through_the_two_nearest() -> None:
    wanted = Work(0.65, 1.0)
    assert step_ms(learnt(*PASS), TINY, wanted) == pytest.approx(32 + (60 - 32) * 0.35 / 0.7)
    without_probe = learnt(*PASS[:3], *PASS[4:])  # a probe is a large and a small step
    assert step_ms(without_probe, TINY, wanted) == pytest.approx(32 + (40 + 16 - 32) * 0.35 / 0.7)
    third = learnt(*PASS, record(Kind.MASKED, 0.7, 1, 50.0))
    assert step_ms(third, TINY, wanted) == pytest.approx(50 - (60 - 50) / 0.3 * 0.05)
    regional = learnt(*PASS[:3], record(Kind.MASKED, 0.5, 0, 30.0))
    assert step_ms(regional, TINY, Work(0.25, 0.0)) == pytest.approx(25.0)


def test_no_step_takes_less_than_no_time_and_half_the_rows_are_not_half_a_mask() -> None:
    steep = learnt(*PASS[:3], record(Kind.MASKED, 0.5, 0, 5.0))
    assert step_ms(steep, TINY, Work(0.1, 0.0)) == 0.0
    times = learnt(*PASS[:3], record(Kind.MASKED, 0.9, 0, 39.0), PASS[-1])
    assert step_ms(times, TINY, Work(0.5, 0.0)) == pytest.approx(35.0)


def test_without_a_large_step_of_its_own_nothing_is_measured_by() -> None:
    timings = Timings()
    assert timings.of(TINY) is None
    timings.learn(TINY, PASS[3:])
    assert timings.of(TINY) is None


@pytest.mark.parametrize(
    "change",
    [{"tokens": 64}, {"images": 1}, {"streams": 1}, {"kv_cache": "fp8"}, {"small_device": "park"}, {"large": MEDIUM}],
    ids=str,
)
def test_another_setup_has_times_of_its_own(change: dict[str, object]) -> None:
    timings = Timings()
    timings.learn(TINY, PASS)
    assert timings.of(replace(TINY, **change)) is None  # type: ignore[arg-type]


def test_the_latest_passes_count_until_everything_is_forgotten() -> None:
    timings = Timings()
    for ms in [1000.0] * 3 + [50.0] * KEPT_PASSES:
        timings.learn(TINY, [record(Kind.LARGE, 1, 0, ms)])
    assert timings.of(TINY) == {FULL: 50.0}
    timings.clear()
    assert timings.of(TINY) is None


def test_the_setup_that_was_not_used_for_longest_is_forgotten() -> None:
    timings, setups = Timings(), [replace(TINY, images=images) for images in range(1, KEPT_SETUPS + 2)]
    for setup in (*setups[:-1], setups[0], setups[-1]):
        timings.learn(setup, PASS)
    assert timings.of(setups[1]) is None
    assert all(timings.of(setup) for setup in (setups[0], *setups[2:]))


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_predictions_may_be_asked_for_while_a_pass_is_learnt() -> None:
    timings, done, failed = Timings(), threading.Event(), []

    def ask() -> None:
        while not done.is_set():
            try:
                times = timings.of(TINY)
                if times is not None:
                    step_ms(times, TINY, Work(0.65, 1.0))
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not happen
                failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(300):
        timings.learn(TINY, [record(Kind.MASKED, number % 97 / 100, 1, 30.0), *PASS])
        if number % 100 == 99:
            timings.clear()
    done.set()
    for thread in asking:
        thread.join()
    assert not failed
