"""What steps compute, and counted operations against PyTorch's own counter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.prediction.operations import FULL, UNKNOWN_SMALL, Work, pass_flops
from tests.networks import LARGE, MEDIUM, SD3, inputs, random_network
from tests.plans.schedules import written
from tests.prediction.setups import SD35_LARGE, SD35_MEDIUM, TINY, TRUE_SIZE


def plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention from operations which the counter knows on every version."""
    q, k, v = (t.unflatten(2, (heads, 64)).transpose(1, 2) for t in (q, k, v))
    return ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("config", [LARGE, MEDIUM, SD3])
@pytest.mark.parametrize("kept", [24, 7])
def test_pass_flops_are_what_pytorch_counts(config: MMDiTConfig, kept: int) -> None:
    network = random_network(config)
    x, context, pooled = inputs(config)
    sigma, cache = torch.full((2,), 0.5), KVCache()
    run(network, x, sigma, context, pooled, cache=cache)
    tokens = None if kept == 24 else shared(torch.arange(kept), 2)
    with FlopCounterMode(display=False) as counter:
        run(network, x, sigma, context, pooled, tokens, cache, attention=plain_attention)
    assert pass_flops(config, kept, 24, 5, rows=2) == counter.get_total_flops()


def test_no_tokens_no_operations() -> None:
    assert pass_flops(LARGE, 0, 24, 5) == 0


def test_true_sizes_cost_what_is_known_of_them() -> None:
    """SD3.5 at 1024²: a 30 % masked pass of Large and a pass of Medium, both over a pass of Large."""
    whole = pass_flops(SD35_LARGE, 4096, 4096, 333)
    assert pass_flops(SD35_LARGE, 1229, 4096, 333) / whole == pytest.approx(0.352, abs=0.005)
    assert pass_flops(SD35_MEDIUM, 4096, 4096, 333) / whole == pytest.approx(0.36, abs=0.005)


@pytest.mark.parametrize(
    ("plan", "streams", "expected"),
    [
        ("L", 2, [FULL]),
        ("3L X", 2, [FULL, FULL, FULL, Work(0.0, 0.0)]),
        ("3L C", 2, [FULL, FULL, FULL, Work(1.0, 0.0, 0.5)]),
        ("3L C", 3, [FULL, FULL, FULL, Work(1.0, 0.0, 0.67)]),
        ("3L C", 1, [FULL] * 4),
        ("S s", 2, [Work(0.0, 1.0), Work(0.0, 1.0, 0.5)]),
        ("2L M30", 2, [FULL, Work(1.0, 1.0), Work(0.3, 1.0)]),
        ("2L M30 score=change", 2, [FULL, FULL, Work(0.3, 1.0)]),
        ("2L M25x score=ras", 2, [FULL, FULL, Work(0.25, 0.0)]),
        ("L M30x", 2, [Work(1.0, 1.0), Work(0.3, 0.0)]),
        ("L M33.3", 2, [Work(1.0, 1.0), Work(0.33, 1.0)]),
    ],
)
def test_what_every_kind_of_step_computes(plan: str, streams: int, expected: list[Work]) -> None:
    setup = replace(TINY, streams=streams)
    assert [setup.work(written(plan), index) for index in range(len(expected))] == expected


def test_operations_of_a_step_are_those_of_its_passes_and_rows() -> None:
    assert TINY.rows == 4
    assert TINY.flops(FULL) == pass_flops(LARGE, 100, 100, 7, rows=4)
    masked = pass_flops(LARGE, 30, 100, 7, rows=4) + pass_flops(MEDIUM, 100, 100, 7, rows=4)
    assert TINY.flops(Work(0.3, 1.0)) == masked
    assert TINY.flops(Work(1.0, 0.0, 0.5)) == pass_flops(LARGE, 100, 100, 7, rows=2)
    assert TINY.flops(Work(0.0, 0.0)) == 0


def test_a_small_model_that_is_not_known_is_taken_for_medium_beside_large() -> None:
    unknown = replace(TRUE_SIZE, small=None)
    assert unknown.flops(Work(0.0, 1.0)) == UNKNOWN_SMALL * unknown.flops(FULL)
    assert unknown.flops(Work(0.3, 1.0)) == pytest.approx(TRUE_SIZE.flops(Work(0.3, 1.0)), rel=0.01)
    assert unknown.flops(FULL) == TRUE_SIZE.flops(FULL)
