"""Which steps are computed, where only a part of them is."""

from __future__ import annotations

import math
import time
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.placement import growing, placed
from lib_hybridstitch.plans.profile import Profile, log_snr
from tests.plans.schedules import shifted
from tests.properties import tries

FLAT = Profile("flat", "0", (0.0, 1.0), (1.0, 1.0), (1.0, 1.0))
EARLY = Profile("early", "0", (0.0, 0.8, 0.9, 1.0), (0.1, 0.1, 9.0, 9.0), (1.0, 1.0, 1.0, 1.0))
LATE = Profile("late", "0", (0.0, 0.3, 0.5, 1.0), (9.0, 9.0, 0.1, 0.1), (1.0, 1.0, 1.0, 1.0))


@tries(200)
@given(steps=st.integers(0, 80), computed=st.integers(0, 90))
def test_growing_gaps_are_as_many_as_asked_and_end_with_the_last_step(steps: int, computed: int) -> None:
    chosen = growing(steps, computed)
    assert len(chosen) == min(steps, computed)
    assert list(chosen) == sorted(set(chosen)) and set(chosen) <= set(range(steps))
    assert not chosen or chosen[-1] == steps - 1
    gaps = [after - before for before, after in pairwise((-1, *chosen))]
    assert all(after >= before - 1 for before, after in pairwise(gaps)), "but for rounding they grow"


def test_growing_gaps_by_hand() -> None:
    assert growing(20, 6) == (1, 3, 6, 10, 14, 19) and growing(20, 12) == (0, 1, 2, 3, 4, 6, 8, 10, 12, 14, 17, 19)
    assert growing(6, 6) == tuple(range(6)) and growing(6, 1) == (5,) and growing(0, 3) == ()


@tries(200)
@given(steps=st.integers(1, 60), computed=st.integers(0, 70), profile=st.sampled_from([None, FLAT, EARLY, LATE]))
def test_computed_steps_are_as_many_as_asked_with_a_dense_beginning_and_the_last(
    steps: int, computed: int, profile: Profile | None
) -> None:
    chosen = placed(Run(shifted(steps), profile=profile), computed)
    assert len(chosen) == (steps if steps <= 3 else min(max(computed, 3), steps))
    assert list(chosen) == sorted(set(chosen)) and chosen[-1] == steps - 1
    least = min(8, max(2, len(chosen) - round(0.15 * steps)), math.ceil(0.45 * steps))
    assert chosen[:least] == tuple(range(min(least, steps)))


def test_a_run_from_noise_begins_with_eight_steps_and_a_pass_from_a_picture_with_half_of_the_computed_ones() -> None:
    """Behind them every second step is left out before the beginning gets longer."""

    def beginning(run: Run, computed: int) -> int:
        chosen = placed(run, computed)
        return next(index for index, step in enumerate(chosen) if index != step)

    noise, picture = Run(shifted(28)), Run(shifted(80)[-28:])
    assert [beginning(noise, computed) for computed in (12, 14, 16, 18, 20, 24)] == [8, 8, 8, 8, 12, 20]
    assert [beginning(noise, computed) for computed in (11, 10, 8)] == [7, 6, 4]
    assert [beginning(picture, computed) for computed in (10, 14)] == [5, 7]
    assert [beginning(Run(shifted(steps)), steps // 2) for steps in (8, 12, 20, 40, 100)] == [3, 4, 7, 12, 29]


def expected_error(sigmas: tuple[float, ...], chosen: tuple[int, ...], profile: Profile) -> float:
    """What a choice is expected to miss: per extrapolated step the remainder of a line through two points, weighed."""
    levels, total = [log_snr(sigma) for sigma in sigmas], 0.0
    for here, after in pairwise(chosen):
        for step in range(here + 1, after):
            reach = levels[step] - levels[here]
            base = reach + levels[after] - levels[here]
            total += profile.strain(sigmas, step) * abs(reach * base) / 2
    return total


@pytest.mark.parametrize("profile", [FLAT, EARLY, LATE])
@pytest.mark.parametrize(("steps", "computed"), [(8, 4), (9, 5), (10, 6), (12, 6), (11, 9)])
def test_with_a_profile_no_other_choice_is_expected_to_miss_less(steps: int, computed: int, profile: Profile) -> None:
    sigmas, found = shifted(steps), placed(Run(shifted(steps), profile=profile), computed)
    dense = next(index for index, step in enumerate(found) if index != step)
    others = combinations(range(dense, steps - 1), computed - dense - 1)
    least = min(expected_error(sigmas, (*range(dense), *inner, steps - 1), profile) for inner in others)
    assert expected_error(sigmas, found, profile) == pytest.approx(least)


def test_computed_steps_stand_where_velocities_change() -> None:
    early, late = (placed(Run(shifted(28), profile=profile), 12) for profile in (EARLY, LATE))
    assert sum(step < 14 for step in early) > sum(step < 14 for step in late)


def test_a_long_run_is_placed_fast_enough_for_a_live_panel() -> None:
    """As a target speed-up asks for it: every share in turn."""
    started = time.perf_counter()
    for computed in range(30, 150, 3):
        placed(Run(shifted(150), profile=FLAT), computed)
    assert time.perf_counter() - started < 6
