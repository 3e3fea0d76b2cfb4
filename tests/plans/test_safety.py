"""What is not safe in a plan is computed instead, whoever wrote it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import Kind, Plan, Step
from lib_hybridstitch.plans.safety import ANCESTRAL, BEGINNING, FEW_STEPS, FROM_PICTURE, secured
from tests.plans.schedules import kinds, longest_row, shifted, written
from tests.plans.test_plan import STEPS
from tests.properties import tries

WORTH = {Kind.EXTRAPOLATED: 0, Kind.SMALL_CFG_CACHED: 1, Kind.SMALL: 2, Kind.MASKED: 3, Kind.CFG_CACHED: 4}


LONG = Run(shifted(28))
"""A run in which nothing is done because there are few steps, however short the plan is written here."""


def made_safe(text: str, run: Run = LONG) -> tuple[str, tuple[str, ...]]:
    found = secured(written(text), run)
    return str(found), found.notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L X 4L", "6L"),
        ("L M30 4L", "6L"),
        ("X L X 3L", "2L X 3L"),
        ("2L C 3L", "6L"),
        ("3L C 2L", "3L C 2L"),
        ("2L X C 4L", "2L X 5L"),
        ("L S L X 4L", "L S 6L"),
        ("2S X 4L", "2S X 4L"),
        ("3S s 4L", "3S s 4L"),
        ("2S s 4L", "2S 5L"),
        ("3M30 X 8L", "2L M30 X 8L"),
    ],
)
def test_nothing_rests_on_too_few_steps_in_a_row(text: str, expected: str) -> None:
    found, notes = made_safe(text)
    assert found == expected
    assert notes == ((BEGINNING,) if found != text else ())


@pytest.mark.parametrize(
    ("text", "ancestral", "expected", "notes"),
    [
        ("8L 9X 11L", False, "8L 8X 12L", (FEW_STEPS,)),
        ("8L 8X 12L", False, "8L 8X 12L", ()),
        ("8L C 9X 10L", False, "8L C 8X C 10L", (FEW_STEPS,)),
        ("8L M30 14X S 4L", False, "8L M30 8X M30 5X S 4L", (FEW_STEPS,)),
        ("2L 2X L", False, "2L X 2L hold", (FEW_STEPS,)),
        ("8L X 2L X 8L", False, "8L X 2L X 8L", (FEW_STEPS,)),
        ("8L X 2L 2X 15L", True, "8L X 2L X 16L", (ANCESTRAL,)),
        ("8L X 2L X 16L", True, "8L X 2L X 16L", ()),
        ("8L 20L", True, "28L", ()),
    ],
)
def test_a_gap_is_no_longer_than_the_pass_allows(
    text: str, ancestral: bool, expected: str, notes: tuple[str, ...]
) -> None:
    assert made_safe(text, Run(written(text).sigmas, ancestral=ancestral)) == (expected, notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3L C M30 S", "4L M30 S"),
        ("3L C X M30 2S", "4L X M30 2S"),
        ("3L 2C M30 S", "3L C L M30 S"),
        ("3L S 2M30 S", "3L S L M30 S"),
        ("3L S X M30 2S", "3L S X L 2S"),
        ("3L M30 S X M30 2S", "3L M30 S X M30 2S"),
        ("3L M30 C M30 S", "3L M30 L M30 S"),
    ],
)
def test_a_masked_step_has_keys_of_all_rows_and_tokens(text: str, expected: str) -> None:
    assert made_safe(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "guided", "expected"),
    [
        ("3L X C X C", False, "3L X L X L"),
        ("3L S s", False, "3L 2S"),
        ("3L X C X C", True, "3L X C X C"),
        ("3L 2s S", True, "3L S s S"),
        ("3L M30 s S", True, "3L M30 s S"),
        ("3L M30x s S", True, "3L M30x s S"),
        ("3L M30x s S score=ras", True, "3L M30x 2S score=ras"),
    ],
)
def test_guidance_is_cached_only_where_there_is_a_difference(text: str, guided: bool, expected: str) -> None:
    assert made_safe(text, replace(LONG, guided=guided))[0] == expected


def test_in_a_short_pass_guidance_is_not_cached_and_velocities_are_held() -> None:
    assert made_safe("3L X C 2L C", Run(shifted(8)))[0] == "3L X 4L hold"
    assert made_safe("3L X C 2L C", Run(shifted(12)))[0] == "3L X C 2L C"


@pytest.mark.parametrize(
    ("text", "expected", "notes"),
    [
        ("8L 6S", "8L 5S L", (FROM_PICTURE,)),
        ("8L 4M30 S M30", "8L 4M30 S L", (FROM_PICTURE,)),
        ("8L 9X", "8L 8X L", (FEW_STEPS,)),
        ("14S", "14S", ()),
        ("8L 5X C", "8L 5X C", ()),
    ],
)
def test_a_pass_that_begins_from_a_picture_ends_with_the_large_model(
    text: str, expected: str, notes: tuple[str, ...]
) -> None:
    assert made_safe(text, Run(shifted(40)[-28:])) == (expected, notes)


@tries(300)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=30),
    strength=st.sampled_from([1.0, 0.5]),
    guided=st.booleans(),
    ancestral=st.booleans(),
)
def test_any_plan_is_safe_afterwards_and_only_ever_computes_more(
    steps: list[Step], strength: float, guided: bool, ancestral: bool
) -> None:
    sigmas = tuple(strength * sigma for sigma in shifted(len(steps)))
    before, run = Plan(tuple(steps), sigmas, "any"), Run(sigmas, guided, ancestral)
    after = secured(before, run)
    assert secured(after, run) == after
    assert all(WORTH.get(new.kind, 5) >= WORTH.get(old.kind, 5) for old, new in zip(before.steps, after.steps))
    assert longest_row(after, Kind.EXTRAPOLATED) <= (1 if ancestral else max(1, int(len(steps) / 3.5)))
    letters = kinds(after)
    for letter, row in (("M", "LL"), ("C", "LLL")):
        assert letter not in letters or row in letters[: letters.index(letter)]
    assert "X" not in letters or {"LL", "SS"} & {letters[i : i + 2] for i in range(letters.index("X"))}
    assert Counter(after.notes) == Counter(set(after.notes))
