"""The laws of a partial pass."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import pytest
import torch

from lib_hybridstitch.errors import StitchError
from lib_hybridstitch.mmdit.kv_cache import KVCache, needed_bytes
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import TokenGrid, gather, shared
from tests.networks import LARGE, MEDIUM, SD3, InPlaceMMDiT, inputs, random_network

SIGMA = torch.tensor([0.6, 0.6])
KINDS = [(config, kind) for config in (LARGE, MEDIUM, SD3) for kind in (MMDiT, InPlaceMMDiT)]
every_network = pytest.mark.parametrize(("config", "kind"), KINDS, ids=lambda value: getattr(value, "__name__", None))


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 2e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@every_network
def test_full_pass_is_the_networks_own_forward_bit_for_bit(config, kind):
    network = random_network(config, kind=kind)
    x, context, pooled = inputs(config)
    own = network(x, SIGMA * 1000, pooled, context)
    for cache in (None, KVCache()):
        patches = run(network, x, SIGMA, context, pooled, cache=cache)
        assert torch.equal(TokenGrid.of(x).to_latent(patches), own)


@pytest.mark.parametrize("tokens", [None, torch.tensor([[0, 5], [1, 2]])], ids=["full", "partial"])
def test_blocks_get_tokens_that_lie_one_after_another(tokens):
    """Whatever a host's embedder gives: ours, and one that leaves the channels as a convolution has them."""
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    seen: list[torch.Tensor] = []
    network.joint_blocks[-1].x_block.norm1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert network.x_embedder(x).is_contiguous()
    own = network.x_embedder.forward
    for embedder in (own, lambda x: own(x).transpose(1, 2).contiguous().transpose(1, 2)):
        network.x_embedder.forward = embedder
        run(network, x, SIGMA, context, pooled, tokens)
    assert len(seen) == 2 and all(tensor.is_contiguous() for tensor in seen)


@every_network
def test_partial_pass_after_a_full_pass_gives_the_full_result(config, kind):
    network = random_network(config, kind=kind)
    x, context, pooled = inputs(config)
    cache = KVCache()
    full = run(network, x, SIGMA, context, pooled, cache=cache)
    tokens = torch.tensor([[0, 5, 7, 23], [1, 2, 11, 20]])
    assert close(run(network, x, SIGMA, context, pooled, tokens, cache), gather(full, tokens))


@every_network
def test_partial_pass_sees_old_keys_outside_its_tokens_and_renews_its_own(config, kind):
    network = random_network(config, kind=kind)
    x, context, pooled = inputs(config)
    cache = KVCache()
    run(network, x, SIGMA, context, pooled, cache=cache)
    tokens, other = shared(torch.tensor([3, 4, 10]), 2), shared(torch.tensor([0, 1]), 2)
    moved = x + 1
    beside_old = run(network, moved, SIGMA, context, pooled, tokens, cache)
    beside_new = gather(run(network, moved, SIGMA, context, pooled), tokens)
    assert not close(beside_old, beside_new, 1e-3)
    beside_renewed = run(network, x, SIGMA, context, pooled, other, cache)
    untouched = KVCache()
    run(network, x, SIGMA, context, pooled, cache=untouched)
    assert not close(beside_renewed, run(network, x, SIGMA, context, pooled, other, untouched), 1e-4)


@pytest.mark.parametrize("config", [LARGE, MEDIUM, SD3])
def test_all_tokens_are_a_full_pass(config):
    network = random_network(config)
    x, context, pooled = inputs(config)
    tokens = shared(torch.arange(24), 2)
    full = run(network, x, SIGMA, context, pooled)
    assert close(run(network, x, SIGMA, context, pooled, tokens), full)
    cache = KVCache()
    run(network, x + 9, SIGMA, context, pooled, cache=cache)
    assert close(run(network, x, SIGMA, context, pooled, tokens, cache), full)


def test_no_tokens_cost_nothing():
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    for part in network.children():
        part.register_forward_pre_hook(lambda *_: pytest.fail("a part of the network ran"))
    empty = torch.empty(2, 0, dtype=torch.long)
    assert run(network, x, SIGMA, context, pooled, empty, KVCache()).shape == (2, 0, 16)


def test_batch_is_its_singles_whatever_the_order_and_the_grouping_of_rows():
    network = random_network(MEDIUM)
    x, context, pooled = inputs(MEDIUM, rows=3)
    sigma = torch.full((3,), 0.4)
    tokens = torch.tensor([[0, 3, 9], [4, 5, 6], [1, 20, 23]])
    keys = ("a", "b", "c")
    cache = KVCache()
    run(network, x, sigma, context, pooled, cache=cache, rows=keys)
    moved = x * 0.9
    whole = run(network, moved, sigma, context, pooled, tokens, cache, rows=keys)

    order = [2, 0, 1]
    singles, split = KVCache(), KVCache()
    for row in range(3):
        part = slice(row, row + 1)
        run(network, x[part], sigma[part], context[part], pooled[part], cache=singles, rows=(keys[row],))
    run(network, x[order], sigma, context[order], pooled[order], cache=split, rows=tuple(keys[row] for row in order))
    for row in range(3):
        part = slice(row, row + 1)
        arguments = (moved[part], sigma[part], context[part], pooled[part], tokens[part])
        for other in (singles, split):
            alone = run(network, *arguments, other, rows=(keys[row],))
            assert close(alone, whole[part])
    regrouped = run(
        network, moved[order], sigma, context[order], pooled[order], tokens[order], singles, rows=("c", "a", "b")
    )
    assert close(regrouped, whole[order])
    assert singles.holds(keys)
    assert singles.bytes() == split.bytes() == cache.bytes()


def test_partial_pass_with_another_length_of_text():
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    longer = torch.cat([context, context.flip(1)], dim=1)
    cache, fresh = KVCache(), KVCache()
    run(network, x, SIGMA, context, pooled, cache=cache)
    run(network, x, SIGMA, longer, pooled, cache=fresh)
    tokens = shared(torch.arange(24), 2)
    expected = run(network, x, SIGMA, longer, pooled, tokens, fresh)
    assert close(run(network, x, SIGMA, longer, pooled, tokens, cache), expected)
    part = shared(torch.tensor([2, 3]), 2)
    run(network, x, SIGMA, context, pooled, cache=cache)
    assert torch.isfinite(run(network, x, SIGMA, longer, pooled, part, cache)).all()


def test_partial_pass_needs_a_full_one_first():
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    with pytest.raises(StitchError, match="full pass"):
        run(network, x, SIGMA, context, pooled, shared(torch.tensor([1]), 2), KVCache())


def test_skipped_layers_and_control_residuals_reach_the_kept_tokens():
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    control = [torch.randn(2, 24, LARGE.hidden, generator=torch.Generator().manual_seed(5)) for _ in range(3)]
    options = {"skip_layers": (1,), "control": control}
    cache = KVCache()
    full = run(network, x, SIGMA, context, pooled, cache=cache, **options)
    assert not close(full, run(network, x, SIGMA, context, pooled, skip_layers=(1,)), 1e-3)
    assert not close(full, run(network, x, SIGMA, context, pooled, control=control), 1e-3)
    tokens = torch.tensor([[0, 5, 7], [1, 2, 11]])
    assert close(run(network, x, SIGMA, context, pooled, tokens, cache, **options), gather(full, tokens))
    by_hand = _by_hand(network, x, context, pooled, control)
    assert close(full, by_hand)


def _by_hand(network, x, context, pooled, control):
    condition = network.t_embedder(SIGMA * 1000, x.dtype) + network.y_embedder(pooled)
    image, text = network.x_embedder(x) + network.cropped_pos_embed((8, 12)), network.context_embedder(context)
    for index in (0, 2):
        text, image = network.joint_blocks[index](text, image, c=condition)
        image = image + control[index]
    return network.final_layer(image, condition)


@pytest.mark.parametrize(("config", "dual"), [(LARGE, 0), (MEDIUM, 1)])
def test_cache_bytes_follow_the_formula(config, dual):
    network = random_network(config)
    x, context, pooled = inputs(config)
    cache = KVCache()
    run(network, x, SIGMA, context, pooled, cache=cache)
    by_hand = 2 * config.hidden * 2 * 4 * (config.depth * (24 + 5) + dual * 24)
    assert cache.bytes() == needed_bytes(config, tokens=24, context=5, rows=2, itemsize=4) == by_hand
    cache.drop()
    assert cache.bytes() == 0
    assert not cache.holds((0,))


def test_fp8_cache_takes_a_quarter_of_fp32_and_stays_near():
    network = random_network(LARGE)
    x, context, pooled = inputs(LARGE)
    exact, small = KVCache(), KVCache(fp8=True)
    full = run(network, x, SIGMA, context, pooled, cache=exact)
    assert torch.equal(run(network, x, SIGMA, context, pooled, cache=small), full)
    assert small.bytes() * 4 == exact.bytes()
    tokens = torch.tensor([[0, 5, 7], [1, 2, 11]])
    near = run(network, x, SIGMA, context, pooled, tokens, small)
    assert close(near, gather(full, tokens), 0.05)
    assert not torch.equal(near, gather(full, tokens))
    row = run(network, x[1:], SIGMA[1:], context[1:], pooled[1:], tokens[1:], small, rows=(1,))
    assert close(row, near[1:], 0.05)


def test_half_precision_weights_compute_in_the_latents_precision():
    network = random_network(MEDIUM)
    x, context, pooled = inputs(MEDIUM)
    expected = run(network, x, SIGMA, context, pooled)
    network.to(torch.bfloat16)
    assert close(run(network, x, SIGMA, context, pooled), expected, 0.05)


@pytest.mark.alone
def test_time_follows_the_ratio():
    """time(r) / time(full) ≤ r + 0.15 at 1024 tokens; the best of three tries, because machines are noisy."""
    network = random_network(replace(LARGE, depth=4, pos_embed_size=32))
    x, context, pooled = inputs(LARGE, height=64, width=64)
    cache = KVCache()

    def seconds(tokens: torch.Tensor | None) -> float:
        started = time.perf_counter()
        run(network, x, SIGMA, context, pooled, tokens, cache)
        return time.perf_counter() - started

    for ratio in (0.1, 0.3, 0.5):
        tokens = shared(torch.arange(round(ratio * 1024)), 2)
        seconds(None)
        seconds(tokens)
        tries = (statistics.median(seconds(tokens) / seconds(None) for _ in range(5)) for _ in range(3))
        assert any(found <= ratio + 0.15 for found in tries)
