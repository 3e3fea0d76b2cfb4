"""What the cache holds at its peak, counted by PyTorch's own profiler."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lib_hybridstitch.mmdit.kv_cache import FreshKeys, KVCache

ATTENTIONS, TOKENS, TEXT, WIDTH = 12, 50, 6, 64
ENTRY = 2 * (TEXT + TOKENS) * WIDTH * 4
"""Bytes of one attention's keys and values of one row."""


def peak(work: Callable[[], object]) -> int:
    """Most bytes alive at once of all that `work` allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    alive = most = 0
    for event in sorted(seen.events(), key=lambda event: event.time_range.start):
        alive += event.self_cpu_memory_usage
        most = max(most, alive)
    return most


def full_pass(cache: KVCache, *rows: str) -> None:
    """Hand the cache keys of ones, attention by attention, as a full pass does."""
    for name in range(ATTENTIONS):
        image = [torch.ones(len(rows), TOKENS, WIDTH) for _ in range(2)]
        text = [torch.ones(len(rows), TEXT, WIDTH) for _ in range(2)]
        cache.attend(rows, str(name), FreshKeys(*image, None, *text))


@pytest.mark.parametrize(
    ("before", "after"),
    [([("a", "b")], ("a", "b")), ([("a",), ("b",)], ("b", "a")), ([("a", "b")], ("b",))],
    ids=["refreshed", "joined", "split"],
)
def test_refreshing_and_regrouping_hold_little_more_than_the_cache(before, after):
    """The peak stays within three entries of both rows (the old one, the parts, the new one) above the formula."""
    cache = KVCache()

    def work() -> None:
        for rows in before:
            full_pass(cache, *rows)
        full_pass(cache, *after) if after in before else cache._group(after)

    assert cache.bytes() == 0
    most = peak(work)
    assert cache.bytes() == 2 * ATTENTIONS * ENTRY
    assert cache.bytes() <= most <= cache.bytes() + 3 * 2 * ENTRY


@pytest.mark.parametrize("values", ["a part of a wider one", "part of several in one memory"])
def test_the_cache_keeps_no_more_alive_than_it_says(values):
    """Values come as a part of the projection to q, k and v; keeping that part would keep all three."""
    rows, width = 2, 8
    if values == "a part of a wider one":
        keys, values = torch.randn(rows, TOKENS, 3, width).unbind(2)[1:]
    else:
        keys, values = torch.randn(3, rows, TOKENS, width).unbind(0)[1:]
    cache = KVCache()
    cache.attend(("a", "b"), "0", FreshKeys(keys, values, None))
    [entry] = cache._groups[0].entries.values()
    held = sum(kept.untyped_storage().nbytes() for kept in (entry.keys, entry.values))
    assert held == cache.bytes() == 2 * rows * TOKENS * width * 4
    assert torch.equal(entry.keys, keys) and torch.equal(entry.values, values)


def test_regrouping_moves_every_attention_and_lets_no_row_go():
    """Rows keep their numbers through joining and splitting; unequal lengths of text make room for the longest."""
    cache = KVCache()
    for number, row in enumerate("abc"):
        keys = torch.full((1, 3, 2), float(number))
        text = torch.zeros(1, 1 + number, 2)
        for name in ("0", "1"):
            cache.attend((row,), name, FreshKeys(keys, 10 * keys, None, text, text))
    group = cache._group(("c", "a"))
    for entry in group.entries.values():
        assert entry.context == 3 and entry.keys.shape == (2, 6, 2)
        assert entry.keys[:, 3:, 0].tolist() == [[2.0] * 3, [0.0] * 3]
        assert entry.values[0, 3:, 0].tolist() == [20.0] * 3
    assert cache.holds(("a", "b", "c"))
    alone = cache._group(("a",))
    assert list(alone.entries) == ["0", "1"] and alone.entries["1"].keys[0, 3:, 0].tolist() == [0.0] * 3
    assert cache._group(("c",)).entries["0"].keys[0, 3:, 0].tolist() == [2.0] * 3
    assert cache._group(("x", "a")).entries == {} and not cache.holds(("y",))
