"""Where full passes fall, and what is expected of a plan."""

from __future__ import annotations

import itertools
import math
import time

import pytest

from lib_hybridstitch.plans.profile import (
    DENSE_SHARE,
    LAYOUT,
    LONGEST,
    PROFILE,
    SECOND,
    Profile,
    caution,
    log_snr,
    missed,
    place,
    remainder,
    strained,
    weight,
)


def shifted(steps: int) -> tuple[float, ...]:
    """SD3's schedule, shift 3."""
    return tuple(3 * (1 - i / steps) / (1 + 2 * (1 - i / steps)) for i in range(steps))


def test_log_snr_is_finite_falls_with_noise_and_vanishes_half_way():
    levels = [log_snr(sigma) for sigma in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert all(math.isfinite(level) for level in levels)
    assert levels == sorted(levels, reverse=True)
    assert log_snr(0.5) == pytest.approx(0.0)
    assert log_snr(0.2) == pytest.approx(math.log(4), abs=0.01)


def test_curves_are_interpolated_and_held_beyond_their_ends():
    curve = Profile((0.2, 0.4, 0.8), (1.0, 3.0, 5.0), (1.0,) * 3, (1.0,) * 3)
    found = [curve.at(curve.bend, sigma) for sigma in (0.0, 0.2, 0.3, 0.6, 0.8, 1.0)]
    assert found == pytest.approx([1, 1, 2, 4, 5, 5])


def test_the_stored_curves_fit_together():
    assert list(PROFILE.sigmas) == sorted(set(PROFILE.sigmas))
    curves = (PROFILE.bend, PROFILE.disagreement, PROFILE.lasting)
    assert all(len(curve) == len(PROFILE.sigmas) and min(curve) > 0 for curve in curves)


def test_the_remainder_grows_with_the_square_of_the_way():
    flat = Profile((0.0, 1.0), (2.0, 2.0), (1.0, 1.0), (1.0, 1.0))
    assert remainder(0.5, 0.5, 0.8, flat) == 0.0
    reach, base = log_snr(0.4) - log_snr(0.5), log_snr(0.4) - log_snr(0.6)
    assert remainder(0.4, 0.5, 0.6, flat) == pytest.approx(reach * base)


def test_the_weight_of_the_last_step_reaches_to_the_end():
    assert weight((0.5, 0.2), 1) == pytest.approx(0.2 * PROFILE.at(PROFILE.lasting, 0.2))


@pytest.mark.parametrize("steps", [4, 10, 28, 50, 150])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_full_passes_include_both_ends_and_are_as_many_as_asked(steps, share):
    asked = round(share * steps)
    chosen = place(shifted(steps), asked)
    second = 1 if asked >= DENSE_SHARE * steps else max(1, round(steps * SECOND))
    assert chosen[:2] == (0, second) and chosen[-1] == steps - 1
    assert list(chosen) == sorted(set(chosen))
    longest = max(2, math.ceil(steps * LONGEST - 1e-9))
    assert max(after - before for before, after in itertools.pairwise(chosen)) <= longest
    least = 2 + math.ceil((steps - 1 - second) / longest)
    assert len(chosen) == max(asked, least)


def test_every_step_is_full_while_the_layout_is_decided_where_there_are_enough():
    sigmas = shifted(28)
    layout = tuple(step for step, sigma in enumerate(sigmas) if sigma > LAYOUT)
    assert len(layout) == 7
    assert all(place(sigmas, full)[:7] == layout for full in range(11, 28))
    assert place(sigmas, 10)[:2] == (0, 2)
    assert place(shifted(20), 8)[:5] != (0, 1, 2, 3, 4), "too few would be left for the rest"


def test_extensions_are_trusted_less_in_noise():
    assert (caution(0.9), caution(0.5)) == (0.5, 1.0)


def test_all_steps_are_full_when_all_are_asked_for():
    assert place(shifted(10), 10) == tuple(range(10)) == place(shifted(10), 99)
    assert place(shifted(3), 1) == (0, 1, 2)


def test_they_stand_closer_where_velocities_bend_more():
    gaps = [after - before for before, after in itertools.pairwise(place(shifted(28), 11))]
    middle = len(gaps) // 2
    assert sum(gaps[1:middle]) < sum(gaps[middle:-1])


def test_no_other_choice_is_expected_to_miss_less():
    """Against every choice of five of eight steps, by the same sum."""
    sigmas = shifted(8)

    def error(chosen: tuple[int, ...]) -> float:
        return sum(missed(strained(sigmas), here, after) for here, after in itertools.pairwise(chosen[1:]))

    others = [(0, 1, *inner, 7) for inner in itertools.combinations(range(2, 7), 2)]
    longest = math.ceil(8 * LONGEST)
    allowed = [c for c in others if max(b - a for a, b in itertools.pairwise(c)) <= longest]
    assert allowed and error(place(sigmas, 5)) == pytest.approx(min(error(c) for c in allowed))


def test_a_long_run_is_placed_fast_enough_for_a_live_panel():
    """Every share of 150 steps, as a target asks for; a table per share would take half a minute."""
    started = time.perf_counter()
    for full in range(30, 150):
        place(shifted(150), full)
    assert time.perf_counter() - started < 5
