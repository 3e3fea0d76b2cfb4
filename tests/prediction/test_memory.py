"""Memory is asked for before it is taken, by formulas that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lib_hybridstitch.hosts.base import Memory, Sampling
from lib_hybridstitch.plans.plan import make_plan
from lib_hybridstitch.prediction.memory import Budget, activation_bytes, cache_bytes, gigabytes
from lib_hybridstitch.settings import StitchSettings
from tests.networks import LARGE, MEDIUM

GB = 2**30
SIGMAS = tuple(1 - step / 10 for step in range(10))
SAMPLING = Sampling(SIGMAS, SIGMAS, (2, 4, 8, 12), 2, 7, False, None, (), ())
TOKENS, ROWS = 4 * 6, 4


def plan(**changes: object) -> object:
    """The Paper preset with changes, as a plan."""
    return make_plan(StitchSettings.from_dict({"preset": "Paper"}).with_changes(changes), SIGMAS)


def test_cache_is_two_numbers_per_width_block_token_and_row() -> None:
    expected = 2 * LARGE.hidden * LARGE.depth * (TOKENS + 7) * ROWS * 2
    assert cache_bytes(plan(), LARGE, MEDIUM, SAMPLING, 2) == expected


def test_cache_of_the_small_model_counts_where_it_has_one() -> None:
    large = cache_bytes(plan(), LARGE, MEDIUM, SAMPLING, 2)
    both = cache_bytes(plan(small_scope="outside"), LARGE, MEDIUM, SAMPLING, 2)
    own = 2 * MEDIUM.hidden * ROWS * 2 * (MEDIUM.depth * (TOKENS + 7) + len(MEDIUM.dual_attention) * TOKENS)
    assert both - large == own


@pytest.mark.parametrize(
    "changes", [{"mask_ratio": 0.0, "background": "reuse"}, {"mask_ratio": 1.0}, {"method": "SRDiffusion"}]
)
def test_plans_without_a_mask_need_no_cache(changes: dict[str, object]) -> None:
    assert cache_bytes(plan(**changes), LARGE, MEDIUM, SAMPLING, 2) == 0


def test_no_cache_when_it_is_off() -> None:
    assert cache_bytes(plan(), LARGE, MEDIUM, SAMPLING, 0) == 0


def test_activations() -> None:
    """Attention is the widest place: 11 widths per token, and 5 more per image token where there is a second one."""
    assert LARGE.qk_norm and MEDIUM.qk_norm and MEDIUM.dual_attention and not LARGE.dual_attention
    assert activation_bytes(LARGE, SAMPLING, 2) == ROWS * LARGE.hidden * 11 * (TOKENS + 7) * 2
    expected = ROWS * MEDIUM.hidden * (11 * (TOKENS + 7) + 5 * TOKENS) * 2
    assert activation_bytes(MEDIUM, SAMPLING, 2) == expected
    assert activation_bytes(MEDIUM, replace(SAMPLING, streams=1), 2) == expected // 2


def test_activations_of_a_large_picture_are_widest_in_the_mlp() -> None:
    big = replace(SAMPLING, latent=(2, 4, 128, 128))
    assert activation_bytes(LARGE, big, 2) == ROWS * LARGE.hidden * (12 * 64 * 64 + 3 * 7) * 2


def test_what_fits_is_not_complained_about() -> None:
    assert Budget(small=5 * GB, cache=2 * GB).shortage(Memory(7 * GB, 24 * GB)) == ""
    assert Budget(small=5 * GB, cache=3 * GB).shortage(Memory(7 * GB, 24 * GB), movable=GB) == ""


def test_what_does_not_fit_is_said_with_its_parts_and_what_to_change() -> None:
    said = Budget(small=5 * GB, cache=3 * GB).shortage(Memory(7 * GB, 24 * GB))
    for part in ("8.0 GB", "5.0 GB small model", "3.0 GB KV cache", "7.0 GB are free", "fp8 file", "KV cache to fp8"):
        assert part in said
    assert "activations" not in said


@pytest.mark.parametrize(("count", "text"), [(GB, "1.0 GB"), (3 * 2**20, "3.0 MB"), (0, "0.0 MB")])
def test_gigabytes(count: int, text: str) -> None:
    assert gigabytes(count) == text
