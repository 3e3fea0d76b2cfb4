"""Memory is asked for before it is taken, by formulas that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_hybridstitch.prediction.memory import Budget, Memory, activation_bytes, cache_bytes, gigabytes
from tests.networks import LARGE, MEDIUM
from tests.plans.schedules import written
from tests.prediction.setups import TINY

GB = 2**30
ROWS, TOKENS, TEXT = 4, 100, 7


@pytest.mark.parametrize("plan", ["2L 4M30 X S", "4L M25x score=ras hold"])
@pytest.mark.parametrize("itemsize", [0, 1, 2, 4])
def test_a_cache_is_two_numbers_per_width_block_token_and_row(plan: str, itemsize: int) -> None:
    expected = 2 * LARGE.hidden * LARGE.depth * (TOKENS + TEXT) * ROWS * itemsize
    assert cache_bytes(written(plan), TINY, itemsize) == expected


@pytest.mark.parametrize("plan", ["8L X C", "4L 4S", "2L M100 M0 S"])
def test_plans_without_a_mask_need_no_cache(plan: str) -> None:
    assert cache_bytes(written(plan), TINY, 2) == 0


def test_activations_of_a_small_picture_are_widest_in_attention() -> None:
    """11 widths per token, and 5 more per image token where there is a second attention."""
    assert LARGE.qk_norm and MEDIUM.qk_norm and MEDIUM.dual_attention and not LARGE.dual_attention
    small = replace(TINY, tokens=24)
    assert activation_bytes(LARGE, small, 2) == ROWS * LARGE.hidden * 11 * (24 + TEXT) * 2
    expected = ROWS * MEDIUM.hidden * (11 * (24 + TEXT) + 5 * 24) * 2
    assert activation_bytes(MEDIUM, small, 2) == expected
    assert activation_bytes(MEDIUM, replace(small, streams=1), 2) == expected // 2


def test_activations_of_a_large_picture_are_widest_in_the_mlp() -> None:
    big = replace(TINY, tokens=64 * 64)
    assert activation_bytes(LARGE, big, 2) == ROWS * LARGE.hidden * (12 * 64 * 64 + 3 * TEXT) * 2


def test_what_fits_is_not_complained_about() -> None:
    assert Budget(small=5 * GB, cache=2 * GB).shortage(Memory(7 * GB, 24 * GB)) == ""
    assert Budget(small=5 * GB, cache=3 * GB).shortage(Memory(7 * GB, 24 * GB, movable=GB)) == ""
    assert Budget().shortage(Memory(0, 0)) == ""


def test_what_does_not_fit_is_said_with_its_parts_and_what_to_change() -> None:
    said = Budget(small=5 * GB, cache=3 * GB).shortage(Memory(7 * GB, 24 * GB))
    for part in ("8.0 GB", "5.0 GB small model", "3.0 GB KV cache", "7.0 GB is free", "fp8 file", "KV cache to fp8"):
        assert part in said
    assert "activations" not in said and "large" not in said
    said = Budget(activations=3 * GB, large=GB).shortage(Memory(GB, GB))
    for part in ("1.0 GB large model", "3.0 GB activations", "size of the picture", "large checkpoint"):
        assert part in said


@pytest.mark.parametrize(("count", "text"), [(GB, "1.0 GB"), (3 * 2**20, "3.0 MB"), (0, "0.0 MB")])
def test_gigabytes(count: int, text: str) -> None:
    assert gigabytes(count) == text
