"""Forecasts from measured times, by numbers that can be checked by hand."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.plans.plan import Plan, Stage, make_plan
from lib_hybridstitch.prediction.cost import StepCosts, forecast
from lib_hybridstitch.prediction.timings import KEPT_KINDS, KEPT_PASSES, Paces, RunKind, shares
from lib_hybridstitch.settings import StitchSettings
from tests.networks import LARGE, MEDIUM

TOKENS = 100
KIND = RunKind(LARGE, MEDIUM, TOKENS, 2, "full", "keep", 2)
COUNTED = StepCosts(large=1000.0, partial=300.0, small=500.0, small_outside=350.0)
SIGMAS = tuple(1 - step / 10 for step in range(10))


def paper(**changes: object) -> Plan:
    """2 large, 4 hybrid at 30 % of which the first is full, 4 small."""
    given = {"preset": "Paper", "switch_step": 2, "handoff_step": 6, "mask_ratio": 0.3, **changes}
    return make_plan(StitchSettings.from_dict({"enabled": True, "small_checkpoint": "s", **given}), SIGMAS)


def record(stage: Stage, large: float, small: float, ms: float) -> Record:
    return Record(0, stage, 0.5, 2, TOKENS, large * TOKENS, small * TOKENS, ms)


PASS = [
    *(record(Stage.LARGE, 1, 0, ms) for ms in (90.0, 40.0, 40.0)),
    record(Stage.HYBRID, 1, 1, 60.0),
    *(record(Stage.HYBRID, 0.3, 1, ms) for ms in (30.0, 34.0, 32.0)),
    record(Stage.SMALL, 0, 1, 16.0),
]


def test_without_a_run_costs_are_counted() -> None:
    assert Paces().costs(KIND, COUNTED) is COUNTED
    assert forecast(paper(), SIGMAS, COUNTED).measured is False


def test_after_a_run_every_step_costs_the_median_of_its_sort() -> None:
    paces = Paces()
    paces.learn(KIND, PASS)
    costs = paces.costs(KIND, COUNTED)
    plan = paper()
    assert [costs.of(step, plan) for step in plan.steps(SIGMAS)] == [40] * 2 + [60] + [32] * 3 + [16] * 4
    told = forecast(plan, SIGMAS, costs)
    assert told.speedup == pytest.approx(10 * 40 / (80 + 60 + 96 + 64))
    assert told.measured and told.summary.endswith("about 1.3x by measured times")


def test_a_step_that_was_never_measured_is_counted_in_relation_to_a_large_one() -> None:
    paces = Paces()
    paces.learn(KIND, PASS[:3])
    plan = paper()
    masked = plan.steps(SIGMAS)[3]
    assert paces.costs(KIND, COUNTED).of(masked, plan) == pytest.approx(40 * (300 + 500) / 1000)


def test_a_partial_pass_of_another_share_lies_on_a_line_through_those_measured() -> None:
    paces = Paces()
    paces.learn(KIND, PASS)
    plan = paper(mask_ratio=0.65)
    masked = plan.steps(SIGMAS)[3]
    assert paces.costs(KIND, COUNTED).of(masked, plan) == pytest.approx(32 + (60 - 32) * (0.65 - 0.3) / (1 - 0.3))
    paces.clear()
    paces.learn(KIND, [*PASS[:3], *PASS[4:]])  # no full hybrid step: it is a large and a small one
    assert paces.costs(KIND, COUNTED).of(masked, plan) == pytest.approx(32 + (40 + 16 - 32) * 0.5)
    paces.clear()
    paces.learn(KIND, [*PASS[:3], record(Stage.HYBRID, 0.5, 0, 30.0)])
    regional = make_plan(StitchSettings.from_dict({"enabled": True, "method": "RAS", "mask_ratio": 0.25}), SIGMAS)
    step = next(one for one in regional.steps(SIGMAS) if one.stage is Stage.HYBRID and not one.full)
    assert paces.costs(KIND, COUNTED).of(step, regional) == pytest.approx(25.0)


def test_without_a_large_step_of_its_own_nothing_is_measured_by() -> None:
    paces = Paces()
    paces.learn(KIND, PASS[3:])
    assert paces.costs(KIND, COUNTED) is COUNTED


@pytest.mark.parametrize(
    "change",
    [{"tokens": 64}, {"rows": 4}, {"kv_cache": "fp8"}, {"small_device": "park"}, {"small": None}, {"large": MEDIUM}],
)
def test_another_kind_of_run_has_times_of_its_own(change: dict[str, object]) -> None:
    paces = Paces()
    paces.learn(KIND, PASS)
    assert paces.costs(replace(KIND, **change), COUNTED) is COUNTED  # type: ignore[arg-type]


def test_the_latest_passes_count() -> None:
    paces = Paces()
    for ms in [1000.0] * 3 + [50.0] * KEPT_PASSES:
        paces.learn(KIND, [record(Stage.LARGE, 1, 0, ms)])
    assert paces.costs(KIND, COUNTED).large == 50.0
    paces.clear()
    assert paces.costs(KIND, COUNTED) is COUNTED


def test_memory_of_kinds_is_bounded() -> None:
    paces = Paces()
    for rows in range(KEPT_KINDS + 1):
        paces.learn(replace(KIND, rows=rows), PASS)
    assert paces.costs(replace(KIND, rows=0), COUNTED) is COUNTED
    assert paces.costs(replace(KIND, rows=1), COUNTED) is not COUNTED


def test_shares_follow_the_plan() -> None:
    outside = paper(small_scope="outside", mask_ratio=0.25)
    assert [shares(step, outside, TOKENS, 0.5) for step in outside.steps(SIGMAS)] == [
        *[(1.0, 0.0, 1.0)] * 2,
        (1.0, 1.0, 1.0),
        *[(0.25, 0.75, 1.0)] * 3,
        *[(0.0, 1.0, 1.0)] * 4,
    ]
    reuse = paper(background="reuse", score="change", mask_ratio=0.0, handoff_step=0)
    assert {shares(step, reuse, TOKENS, 0.5) for step in reuse.steps(SIGMAS)[3:]} == {(0.0, 0.0, 1.0)}


def test_a_pass_with_guidance_held_costs_its_rows_until_it_was_measured() -> None:
    plan = make_plan(StitchSettings.from_dict({"full_share": 1.0, "hold_guidance": 5}), SIGMAS)
    steps = plan.steps(SIGMAS)
    assert [step.held for step in steps] == [False] * 5 + [True] * 5 and all(step.full for step in steps)
    counted = replace(COUNTED, held=0.5)
    assert [counted.of(step, plan) for step in steps[4:6]] == [1000.0, 500.0]
    paces = Paces()
    paces.learn(KIND, PASS)
    assert paces.costs(KIND, counted).of(steps[-1], plan) == pytest.approx(20.0)
    paces.learn(KIND, [*PASS[:3], replace(record(Stage.HYBRID, 0.5, 0, 23.0), rows_held=1)])
    assert paces.costs(KIND, counted).of(steps[-1], plan) == pytest.approx(23.0)
    masked = next(step for step in paper(mask_ratio=0.5).steps(SIGMAS) if step.stage is Stage.HYBRID and not step.full)
    assert paces.costs(KIND, counted).of(masked, paper(mask_ratio=0.5)) > 30.0, "half of the rows is not half a mask"


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads give way to one another as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_forecasts_are_asked_for_while_times_are_learnt(restless: None) -> None:
    paces, failed = Paces(), list[Exception]()
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                paces.costs(KIND, COUNTED)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test tells it
            failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for number in range(1500):
        paces.learn(KIND, [record(Stage.HYBRID, number % 97 / 100, 1, 30.0), *PASS])
        if number % 100 == 99:
            paces.clear()
    done.set()
    for thread in asking:
        thread.join()
    assert not failed
