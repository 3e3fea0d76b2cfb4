"""Plans: their text form, and which step a noise level belongs to."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.plans.plan import (
    CFG_CACHED,
    EXTRAPOLATED,
    LARGE,
    SCORES,
    SMALL,
    SMALL_CFG_CACHED,
    Plan,
    Step,
    WrittenPlan,
    masked,
    parse,
    run_sigmas,
)
from tests.plans.schedules import kinds, shifted, written
from tests.properties import tries
from tests.sentences import one_sentence

STEPS = st.one_of(
    st.sampled_from([LARGE, CFG_CACHED, SMALL, SMALL_CFG_CACHED, EXTRAPOLATED]),
    st.builds(masked, st.floats(-0.1, 1.1), st.booleans()),
)
PLANS = st.builds(WrittenPlan, st.lists(STEPS, min_size=1, max_size=30).map(tuple), st.sampled_from(SCORES))


@tries(300)
@given(first=PLANS, second=PLANS, hold=st.booleans())
def test_what_is_written_is_read_back_for_both_passes(first: WrittenPlan, second: WrittenPlan, hold: bool) -> None:
    def text(plan: WrittenPlan) -> str:
        return str(Plan(plan.steps, shifted(len(plan.steps)), "", plan.score, hold))

    first, second = (WrittenPlan(plan.steps, plan.score, hold) for plan in (first, second))
    assert parse(text(first)) == (first, None)
    assert parse(f"/ hires {text(second)}") == (None, second)
    assert parse(f"{text(first)} / hires {text(second)}") == (first, second)


def test_the_text_form_by_hand() -> None:
    steps = (LARGE, LARGE, masked(0.3), EXTRAPOLATED, masked(0.125, extrapolated=True), SMALL, SMALL_CFG_CACHED)
    plan = Plan((*steps, CFG_CACHED), shifted(8), "", score="change", hold=True)
    assert str(plan) == "2L M30 X M12.5x S s C score=change hold"
    assert parse("") == parse(" ") == (None, None)
    assert parse("8L 0X\tM100 M0 M0x") == (WrittenPlan((*[LARGE] * 9, SMALL, EXTRAPOLATED)), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8L nonsense", "'nonsense'"),
        ("8l", "'8l'"),
        ("L8", "'L8'"),
        ("M", "'M'"),
        ("M101", "'M101'"),
        ("M30.123", "'M30.123'"),
        ("M-3", "'M-3'"),
        ("٣L", "percentage"),
        ("8L score=detail", "'score=detail'"),
        ("score=change hold", "without any step"),
        ("0L", "without any step"),
        ("8L / hires", "without any step"),
        ("/ hires 8L / hires 8L", "names '/ hires' 2 times"),
        ("10001L", "more than 10000"),
        ("9999L 2X", "more than 10000"),
        ("123456L", "'123456L'"),
        ("x" * 4000, "must be steps such as"),
        ("8L\u202e", "must be steps such as"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(text)
    assert says in str(refused.value) and one_sentence(str(refused.value)) and refused.value.key == "plan"
    assert len(str(refused.value)) < 300


@tries(200)
@given(text=st.text(st.sampled_from("0123456789LCSsXMx./ hires=score"), max_size=20))
def test_whatever_is_typed_is_a_plan_or_a_sentence(text: str) -> None:
    try:
        parse(text)
    except SettingsError as refused:
        assert one_sentence(str(refused))


@tries(200)
@given(levels=st.lists(st.floats(0.001, 1), min_size=1, max_size=12, unique=True), at=st.floats(0, 1))
def test_every_noise_level_belongs_to_the_nearest_level_of_the_schedule(levels: list[float], at: float) -> None:
    sigmas = tuple(sorted(levels, reverse=True))
    found = Plan((LARGE,) * len(sigmas), sigmas, "").index(at)
    assert found is not None
    assert abs(sigmas[found] - at) <= min(abs(sigma - at) for sigma in sigmas) + 1e-9


def test_a_second_evaluation_has_the_kind_of_the_level_it_is_made_at_and_a_border_that_of_the_lower() -> None:
    plan = written("L S X", (1.0, 0.6, 0.2))
    assert [plan.index(sigma) for sigma in plan.sigmas] == [0, 1, 2]
    assert [plan.index(sigma) for sigma in (0.81, 0.8, 0.79)] == [0, 1, 1], "half-way between 1 and 0.6"
    assert [plan.index(math.sqrt(high * low)) for high, low in pairwise(plan.sigmas)] == [1, 2], "DPM2's midpoints"
    assert plan.index(0.0) == plan.index(-1.0) == 2


def test_timesteps_handed_in_as_noise_levels_and_nan_belong_to_no_step() -> None:
    plan = written("3S")
    assert [plan.index(sigma) for sigma in (751.0, 1.001, math.inf, math.nan)] == [None] * 4
    assert plan.index(1.00005) == 0, "a rounded 1"


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("4L 2S", 6, "LLLLSS"),
        ("4L 2S", 3, "LLS"),
        ("4L 2S", 12, "LLLLLLLLSSSS"),
        ("4L 2S", 1, "L"),
        ("L S", 5, "LLSSS"),
        ("L", 5, "LLLLL"),
        ("10L", 4, "LLLL"),
    ],
)
def test_a_plan_stretches_to_a_pass_of_another_length(text: str, count: int, expected: str) -> None:
    first, _ = parse(text)
    assert first is not None
    assert "".join(step.kind.value for step in first.fitted(count)) == expected


@tries(100)
@given(own=st.integers(1, 60), count=st.integers(1, 60))
def test_a_stretched_plan_keeps_its_order_and_loses_no_step_where_there_is_room(own: int, count: int) -> None:
    steps = tuple(masked(index / 100) for index in range(1, own + 1))
    made = WrittenPlan(steps).fitted(count)
    assert len(made) == count
    assert [step.ratio for step in made] == sorted(step.ratio for step in made)
    assert len(set(made)) == min(own, count)


@pytest.mark.parametrize(
    ("text", "probes", "small"),
    [
        ("4L", "", ""),
        ("3L M30 X M30 S", "2", "2356"),
        ("3L 2X M30 L M30", "26", "2567"),
        ("3L M30x", "2", "2"),
        ("3L M30x score=ras", "2", ""),
        ("3L M30 score=change", "2", "3"),
        ("3L 2S M30", "", "345"),
        ("2S 2L", "", "01"),
        ("3L C X s", "", "5"),
    ],
)
def test_where_scores_are_made_and_where_the_small_model_is_called(text: str, probes: str, small: str) -> None:
    plan = written(text)
    count = range(len(plan.steps))
    assert "".join(str(index) for index in count if plan.is_probe(index)) == probes
    assert "".join(str(index) for index in count if plan.calls_small(index)) == small
    assert plan.needs_small is bool(small)


def test_the_largest_mask_decides_about_memory() -> None:
    assert written("3L M20 2M40x S").mask_ratio == 0.4
    assert written("8L C X S").mask_ratio == 0.0


def test_a_plan_has_a_step_for_every_noise_level() -> None:
    for steps, sigmas in (((LARGE,), (1.0, 0.5)), ((), ())):
        with pytest.raises(ValueError, match="steps for"):
            Plan(steps, sigmas, "")


def test_the_final_zero_of_a_schedule_is_no_step() -> None:
    assert run_sigmas((1.0, 0.5, 0.0)) == (1.0, 0.5)
    assert run_sigmas((1.0, 0.5)) == (1.0, 0.5)
    assert run_sigmas((0.0,)) == (0.0,)


def test_notes_do_not_make_another_plan_of_it() -> None:
    steps, sigmas = (Step(LARGE.kind),), (1.0,)
    assert Plan(steps, sigmas, "a", notes=("said",)) == Plan(steps, sigmas, "a") != Plan(steps, sigmas, "b")
    assert kinds(Plan(steps, sigmas, "a")) == "L"
