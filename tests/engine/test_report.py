"""What happened in a pass, by hand; and what a masked step sees: caches, skipped layers, residuals."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.engine.report import Record, Report, counted, mean_mask, stopwatch
from lib_hybridstitch.mmdit.kv_cache import KVCache, needed_bytes
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import gather, shared
from lib_hybridstitch.plans.plan import Kind
from tests.engine.passes import GRID, TOKENS, both, large_network, latents, sample, small_network, stitcher
from tests.networks import LARGE


@pytest.mark.parametrize("calls", ["joint", "split", "singles"])
def test_records_by_hand(calls: str) -> None:
    engine = stitcher("3L M25 X M25x S s C L")
    sample(engine, (0, 1), calls)
    records = engine.report.evaluations()
    assert "".join(record.kind.value for record in records) == "LLLMXMSsCL"
    assert [record.tokens_large for record in records] == [24, 24, 24, 6, 0, 6, 0, 0, 12, 24]
    assert [record.tokens_small for record in records] == [0, 0, 24, 24, 0, 0, 24, 12, 0, 0]
    assert [record.rows_cached for record in records] == [0] * 7 + [2, 2, 0]
    assert [record.sigma for record in records] == pytest.approx(engine.plan.sigmas)
    assert {(record.rows, record.tokens) for record in records} == {(4, TOKENS)}
    assert all(record.ms > 0 for record in records)
    assert [record.evaluation for record in records] == list(range(10))
    assert records[3].shares == (0.25, 1.0)
    assert mean_mask(records) == 0.25 and mean_mask(records[:3]) == 0.0
    assert list(counted(records).items()) == [
        *[(Kind.LARGE, 4), (Kind.MASKED, 2), (Kind.EXTRAPOLATED, 1), (Kind.SMALL, 1)],
        *[(Kind.SMALL_CFG_CACHED, 1), (Kind.CFG_CACHED, 1)],
    ]
    assert {evaluation: mask.sum(1).tolist() for evaluation, mask in engine.report.masks.items()} == {
        3: [6, 6],
        5: [6, 6],
    }


def test_two_evaluations_at_one_level_are_two() -> None:
    engine, x = stitcher("2L 2M25"), latents()[0]
    sigmas = engine.plan.sigmas
    for sigma in (*sigmas[:2], sigmas[2], sigmas[2], sigmas[3]):
        engine.velocity(both(x, sigma))
    assert len(engine.report.evaluations()) == 5 and engine.report.masks.keys() == {2, 3, 4}


def test_calls_of_one_evaluation_are_added_up() -> None:
    large = Record(3, Kind.LARGE, 0.5, 1, 24, 24.0, 0.0, 0, 7.0)
    follows = Record(3, Kind.CFG_CACHED, 0.5, 3, 24, 8.0, 4.0, 2, 1.0)
    joined = Record(3, Kind.CFG_CACHED, 0.5, 4, 24, 12.0, 3.0, 2, 8.0)
    assert large.joined(follows) == joined == follows.joined(large)


def test_times_are_asked_for_when_somebody_wants_to_know() -> None:
    report, asked = Report(), []
    report.add(Record(0, Kind.LARGE, 0.5, 1, 24), lambda: asked.append(1) or 5.0)
    assert not asked
    assert report.evaluations()[0].ms == 5.0


def test_a_stopwatch_tells_milliseconds() -> None:
    stop = stopwatch(torch.device("cpu"))
    time.sleep(0.02)
    took = stop()
    time.sleep(0.02)
    assert 19 < took() == took() < 2000


def masked_part(cache: KVCache | None, x: Tensor, sigmas: tuple[float, ...], mask: Tensor) -> Tensor:
    """The masked tokens of the last of two levels as the network computes them over a cache of the first."""
    for sigma, tokens in zip(sigmas, (None, shared(mask.nonzero().flatten(), 2))):
        call = both(x, sigma)
        made = run(large_network(), call.x, call.sigma, call.context, call.pooled, tokens, cache)
    return made


@pytest.mark.parametrize(
    ("options", "cache", "itemsize"),
    [
        ({}, KVCache(), 4),
        ({"fp8_cache": True}, KVCache(fp8=True), 1),
        ({"use_cache": False}, None, 0),
    ],
    ids=["full", "fp8", "off"],
)
def test_the_masked_part_sees_the_rest_as_the_setting_says(
    options: dict[str, bool], cache: KVCache | None, itemsize: int
) -> None:
    engine, x = stitcher("2L M25", **options), latents()[0]
    *_, made = (GRID.to_patches(engine.velocity(both(x, sigma)).velocity) for sigma in engine.plan.sigmas)
    mask = engine.report.masks[2][0]
    assert torch.allclose(made[:, mask], masked_part(cache, x, engine.plan.sigmas[1:], mask), atol=1e-6)
    assert engine.report.cache_bytes == needed_bytes(LARGE, TOKENS, 5, 2, itemsize)


def test_the_three_kinds_of_cache_differ_and_fp8_is_nearer_than_none() -> None:
    x, sigmas = latents()[0], (0.9, 0.85)
    mask = torch.arange(TOKENS) < 6
    exact, fp8, none = (masked_part(cache, x, sigmas, mask) for cache in (KVCache(), KVCache(fp8=True), None))
    near, far = (exact - fp8).abs().mean(), (exact - none).abs().mean()
    assert 0 < near < far / 4


def test_skipped_layers_and_control_residuals_reach_the_large_model_alone() -> None:
    control = [torch.randn(2, TOKENS, LARGE.hidden, generator=torch.Generator().manual_seed(5)) for _ in range(3)]
    options = {"skip_layers": (1,), "control": control}
    engine, x = stitcher("2L M25 S"), latents()[0]
    sigmas, cache = engine.plan.sigmas, KVCache()
    made = [engine.velocity(both(x, sigma, **options)).velocity for sigma in sigmas]
    mask = engine.report.masks[2][0]
    tokens = shared(mask.nonzero().flatten(), 2)
    for sigma, chosen, velocity in ((sigmas[1], None, made[1]), (sigmas[2], tokens, made[2])):
        call = both(x, sigma)
        wanted = run(large_network(), call.x, call.sigma, call.context, call.pooled, chosen, cache, **options)
        patches = GRID.to_patches(velocity)
        assert torch.allclose(patches if chosen is None else gather(patches, chosen), wanted, atol=1e-5)
    small = Model(small_network())
    outside = GRID.to_patches(small.full_pass(both(x, sigmas[2])).velocity)[:, ~mask]
    assert torch.allclose(GRID.to_patches(made[2])[:, ~mask], outside, atol=1e-6)
    assert torch.equal(made[3], small.full_pass(both(x, sigmas[3])).velocity)
    assert not torch.allclose(made[1], engine.velocity(both(x, sigmas[1])).velocity, atol=1e-2)


def test_a_part_of_an_evaluation_takes_its_rows_of_everything() -> None:
    x = latents()
    control = [torch.arange(2.0).view(2, 1, 1).expand(2, TOKENS, 3)]
    call = both(x[0], 0.5, control=control)
    part = call.part([1])
    assert part.rows == call.rows[1:] and part.x.equal(call.x[1:]) and part.context.equal(call.context[1:])
    assert part.pooled.equal(call.pooled[1:]) and part.sigma.tolist() == [0.5]
    assert part.control is not None and part.control[0].unique().tolist() == [1.0]
    assert part.full_pass is call.full_pass


def test_models_may_compute_in_another_precision_and_answer_in_the_latents() -> None:
    call = both(latents()[0], 0.5)
    exact = Model(small_network()).full_pass(call).velocity
    rough = Model(small_network(), dtype=torch.bfloat16).full_pass(call).velocity
    assert rough.dtype == exact.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()
