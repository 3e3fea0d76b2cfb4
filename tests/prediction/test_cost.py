"""Counted operations against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.plans.plan import HybridRule, Plan
from lib_hybridstitch.prediction.cost import StepCosts, pass_flops
from tests.networks import LARGE, MEDIUM, SD3, inputs, random_network


def plain_attention(q, k, v, heads):
    """Attention from operations which the counter knows on every version."""
    q, k, v = (t.unflatten(2, (heads, 64)).transpose(1, 2) for t in (q, k, v))
    return ((q @ k.transpose(2, 3)).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("config", [LARGE, MEDIUM, SD3])
@pytest.mark.parametrize("kept", [24, 7])
def test_pass_flops_are_what_pytorch_counts(config, kept):
    network = random_network(config)
    x, context, pooled = inputs(config)
    sigma, cache = torch.full((2,), 0.5), KVCache()
    run(network, x, sigma, context, pooled, cache=cache)
    tokens = None if kept == 24 else shared(torch.arange(kept), 2)
    with FlopCounterMode(display=False) as counter:
        run(network, x, sigma, context, pooled, tokens, cache, attention=plain_attention)
    assert pass_flops(config, kept, 24, 5, rows=2) == counter.get_total_flops()


def test_no_tokens_no_operations():
    assert pass_flops(LARGE, 0, 24, 5) == 0


def test_counted_costs_follow_the_mask():
    plan = Plan("x", (), HybridRule(mask_ratio=0.25))
    costs = StepCosts.counted(LARGE, MEDIUM, plan, 24, 5, 2)
    assert costs.large == pass_flops(LARGE, 24, 24, 5, 2)
    assert costs.partial == pass_flops(LARGE, 6, 24, 5, 2)
    assert costs.small_outside == pass_flops(MEDIUM, 18, 24, 5, 2)
    assert StepCosts.counted(LARGE, None, plan, 24, 5, 2).small == 0
    assert [StepCosts.counted(LARGE, None, plan, 24, 5, 6, streams).held for streams in (1, 2, 3)] == [1, 1 / 2, 2 / 3]


def test_true_sizes_cost_what_is_known_of_them():
    """SD3.5 at 1024²: a 30 % hybrid pass of Large and a pass of Medium, both over a pass of Large."""
    from dataclasses import replace

    large = replace(LARGE, depth=38, in_channels=16, out_channels=16, context_dim=4096, pooled_dim=2048)
    medium = replace(large, depth=24, dual_attention=tuple(range(13)))
    whole = pass_flops(large, 4096, 4096, 333)
    assert pass_flops(large, 1229, 4096, 333) / whole == pytest.approx(0.35, abs=0.02)
    assert pass_flops(medium, 4096, 4096, 333) / whole == pytest.approx(0.36, abs=0.04)
