"""The one way from settings to a plan, and to what it will do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.methods import METHODS
from lib_hybridstitch.plans.plan import HIRES, Kind, masked
from lib_hybridstitch.plans.safety import BEGINNING, secured
from lib_hybridstitch.prediction.operations import FULL, Work
from lib_hybridstitch.prediction.resolver import ADVICE, FAST_ENOUGH, NOT_FASTER, Resolved, in_words, resolve
from lib_hybridstitch.settings import PRESETS, StitchSettings
from tests.plans.schedules import shifted, written
from tests.prediction.setups import TRUE_SIZE
from tests.sentences import one_sentence

RUN = Run(shifted(28))
NAMES = [method.name for method in METHODS]


def settings(**values: Any) -> StitchSettings:
    return StitchSettings.from_dict({"small_checkpoint": "medium", **values})


def resolved(run: Run = RUN, **values: Any) -> Resolved:
    return resolve(settings(**values), run, TRUE_SIZE)


@pytest.mark.parametrize("method", NAMES)
def test_without_a_target_the_method_says_what_is_done(method: str) -> None:
    found = resolved(method=method)
    assert found.plan == secured(settings(method=method).chosen().plan(RUN), RUN)
    assert found.plan.method == method


def test_speed_ups_are_counted_until_steps_were_measured() -> None:
    found = resolved(plan="7L 7S 7X 7S")
    assert found.speedup == pytest.approx(28 / (7 + 14 * TRUE_SIZE.flops(Work(0.0, 1.0)) / TRUE_SIZE.flops(FULL)), 0.1)
    assert (found.seconds, found.large_seconds) == (None, None)
    assert found.summary.endswith("by counted operations")
    times = {FULL: 1000.0, Work(0.0, 1.0): 500.0, Work(0.0, 0.0): 100.0}
    found = resolve(settings(plan="10L 10S 3X S 4X"), RUN, TRUE_SIZE, times)
    assert (found.seconds, found.large_seconds) == (pytest.approx(10 + 5.5 + 0.7), 28.0)
    assert found.speedup == pytest.approx(28 / 16.2)
    assert found.summary == "10 large, 11 small, 7 extrapolated; about 1.7x by measured times"


@pytest.mark.parametrize("method", ["HybridStitch", "Step cache"])
@pytest.mark.parametrize("steps", [28, 40, 50])
def test_in_a_usual_run_fast_is_faster_than_balanced_and_that_than_quality(method: str, steps: int) -> None:
    run = Run(shifted(steps))
    fast, balanced, quality = (
        resolved(run, method=method, preset=preset).speedup for preset in ("Fast", "Balanced", "Quality")
    )
    assert fast > balanced > quality > 1.2


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("target", [1.3, 1.5, 1.83, 2.5])
@pytest.mark.parametrize("steps", [20, 50])
def test_a_target_is_reached_and_never_missed_without_a_word(method: str, target: float, steps: int) -> None:
    found = resolved(Run(shifted(steps)), method=method, target_speedup=target)
    assert found.speedup >= FAST_ENOUGH * target or found.reason == "target"
    assert found.plan.method == method
    if found.reason != "target":
        whole_steps = target * steps / (steps - 2.5 * target)
        assert found.speedup <= whole_steps + 0.3, "no faster than it must be, but for whole steps"
    assert found.reason != "target" or target > 1.4


def test_a_target_keeps_the_settings_that_it_does_not_pick() -> None:
    found = resolved(method="HybridStitch", target_speedup=1.8, mask_ratio=0.2, score="change")
    assert found.plan.mask_ratio == 0.2 and found.plan.score == "change"


def test_a_target_out_of_reach_gives_the_fastest_there_is_and_says_so() -> None:
    for method in NAMES:
        short = Run(shifted(8))
        found = resolved(short, method=method, target_speedup=4.0)
        assert found.reason == "target" and found.advice == ADVICE["target"]
        own = settings(method=method).chosen()
        tried = [secured(replace(own, **values).plan(short), short) for values in own.faster()]
        works = ([TRUE_SIZE.work(plan, index) for index in range(8)] for plan in tried)
        cheapest = min(sum(TRUE_SIZE.flops(work) for work in steps) for steps in works)
        assert found.speedup == pytest.approx(8 * TRUE_SIZE.flops(FULL) / cheapest)


def test_a_target_by_measured_times_is_reached_by_them() -> None:
    slow_small = {FULL: 1000.0, Work(0.0, 1.0): 900.0, Work(1.0, 1.0): 1900.0, Work(0.3, 1.0): 1300.0}
    found = resolve(settings(target_speedup=1.5), RUN, TRUE_SIZE, slow_small)
    assert found.speedup >= FAST_ENOUGH * 1.5 and found.seconds is not None
    assert found.plan != resolved(target_speedup=1.5).plan


def test_the_part_of_the_schedule_that_is_sampled_counts() -> None:
    tail = Run(shifted(40)[-20:])
    assert resolved(tail, target_speedup=1.5).speedup >= FAST_ENOUGH * 1.5


@pytest.mark.parametrize(
    "values",
    [{"method": "RAS"}, {"target_speedup": 3.0}, {"preset": "Paper"}, {"method": "Step cache", "preset": "Fast"}],
    ids=str,
)
def test_a_written_plan_is_in_force_whatever_else_is_set(values: dict[str, Any]) -> None:
    found = resolved(plan="14L 14S", **values)
    assert str(found.plan) == "14L 14S" and found.plan.method == "written plan"


def test_a_written_plan_is_stretched_and_made_safe_and_says_so() -> None:
    found = resolved(plan="L M30 X S 10L")
    assert str(found.plan) == "2L 2M30 2X 2S 20L" and not found.plan.notes
    found = resolved(Run(shifted(14)), plan="L M30 X S 10L score=change hold")
    assert str(found.plan) == "2L X S 10L score=change hold" and BEGINNING in found.plan.notes


def test_either_pass_of_hires_has_a_plan_of_its_own() -> None:
    both = settings(plan=f"28L {HIRES} 14L 14S")
    assert str(resolve(both, RUN, TRUE_SIZE).plan) == "28L"
    assert str(resolve(both, RUN, TRUE_SIZE, hires=True).plan) == "14L 14S"
    first = settings(plan="28L")
    assert resolve(first, RUN, TRUE_SIZE, hires=True).plan == resolved().plan
    second = settings(plan=f"{HIRES} 28L")
    assert resolve(second, RUN, TRUE_SIZE).plan == resolved().plan


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "run",
    [RUN, Run(shifted(9)), Run(shifted(30)[-14:], guided=False, ancestral=True)],
    ids=["usual", "short", "unguided and ancestral from a picture"],
)
def test_a_picture_is_remade_from_the_plan_that_it_records(method: str, preset: str, run: Run) -> None:
    made = resolved(run, method=method, preset=preset).plan
    again = resolved(run, plan=str(made)).plan
    assert (again.steps, again.score, again.hold) == (made.steps, made.score, made.hold)


@pytest.mark.parametrize(
    ("values", "run", "reason"),
    [
        ({}, RUN, ""),
        ({"method": "Step cache", "small_checkpoint": ""}, RUN, ""),
        ({"small_checkpoint": ""}, RUN, "step_cache"),
        ({"small_checkpoint": "", "plan": "14L 7X 7L"}, RUN, ""),
        ({"small_checkpoint": "", "method": "T-Stitch"}, RUN, "choose_small"),
        ({"small_checkpoint": "", "preset": "Paper"}, RUN, "choose_small"),
        ({"small_checkpoint": "", "plan": "14L 14S"}, RUN, "choose_small"),
        ({"small_checkpoint": "", "method": "SRDiffusion", "target_speedup": 4.0}, RUN, "choose_small"),
        ({"method": "Step cache"}, RUN, "no_small"),
        ({"method": "RAS"}, RUN, "no_small"),
        ({"plan": "28L"}, RUN, "not_faster"),
        ({"method": "T-Stitch", "switch_step": 0}, RUN, "not_faster"),
        ({}, Run(shifted(2)), "not_faster"),
        ({"target_speedup": 4.0}, Run(shifted(6)), "target"),
        ({"target_speedup": 1.0, "method": "SRDiffusion"}, Run(shifted(50)), "low_target"),
    ],
    ids=lambda value: f"{value.steps} steps" if isinstance(value, Run) else str(value),
)
def test_what_there_is_to_know_about_a_plan(values: dict[str, Any], run: Run, reason: str) -> None:
    found = resolved(run, **values)
    assert found.reason == reason
    assert found.advice == ADVICE.get(reason, "")
    if reason == "not_faster":
        assert found.speedup <= NOT_FASTER


def test_all_advice_is_given_somewhere_above_and_is_a_sentence() -> None:
    (table,) = (mark for mark in test_what_there_is_to_know_about_a_plan.pytestmark if mark.name == "parametrize")
    assert {reason for *_, reason in table.args[1]} == {"", *ADVICE}
    assert all(one_sentence(text) for text in ADVICE.values())


def test_plans_and_what_happened_in_words() -> None:
    plan = written("8L 2M30 X M20 X S s C")
    words = "8 large, 3 masked at 27 %, 2 extrapolated, 1 small, 1 small CFG cached, 1 CFG cached"
    assert in_words(plan.steps) == words
    records = [Record(0, Kind.LARGE, 1.0, 2, 40, 40.0), Record(1, Kind.MASKED, 0.9, 2, 40, 10.0, 40.0)]
    assert in_words(records) == "1 large, 1 masked at 25 %"
    assert in_words([masked(0.3)]) == "1 masked at 30 %" and in_words([]) == ""
