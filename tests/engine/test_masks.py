"""Scores and masks, on numbers that can be checked by hand."""

from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_hybridstitch.engine import masks
from lib_hybridstitch.engine.evaluation import COND, UNCOND, Model
from lib_hybridstitch.engine.history import History
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.mmdit.tokens import TokenGrid
from tests.engine.passes import (
    GRID,
    TOKENS,
    both,
    large_model,
    large_network,
    latents,
    sample,
    small_network,
    stitcher,
)
from tests.properties import tries


def signal(*values: float) -> Tensor:
    """Patches of two numbers per token."""
    return torch.tensor([[value, value] for value in values], dtype=torch.float32)


def test_signals_are_put_together_as_guidance_puts_together_velocities() -> None:
    cond, other, uncond = signal(1, 2), signal(3, 2), signal(1, 5)
    assert torch.equal(masks.guided({COND: cond, UNCOND: uncond}, 4.0), uncond + 4 * (cond - uncond))
    both_prompts = {COND: cond, "cond 2": other, UNCOND: uncond}
    assert torch.equal(masks.guided(both_prompts, 2.0), uncond + 2 * (signal(2, 2) - uncond))
    assert torch.equal(masks.guided({COND: cond, "cond 2": other}, 4.0), signal(2, 2))
    assert torch.equal(masks.guided({UNCOND: uncond}, 4.0), uncond)


@pytest.mark.parametrize(("ratio", "size"), [(0, 0), (0.3, 19), (0.5, 32), (1, 64), (0.0078125, 1)])
def test_a_mask_has_its_share_of_the_tokens_halves_upwards(ratio: float, size: int) -> None:
    assert masks.mask_size(ratio, 64) == size


@pytest.mark.parametrize(
    ("size", "region", "expected"),
    [
        (2, None, [1, 3]),
        (4, None, [0, 1, 2, 3]),
        (0, None, []),
        (2, [True, False, True, True], [2, 3]),
        (4, [True, False, False, False], [0]),
        (2, [False] * 4, []),
    ],
)
def test_the_highest_scores_inside_the_region_are_chosen(
    size: int, region: list[bool] | None, expected: list[int]
) -> None:
    allowed = None if region is None else torch.tensor(region)
    assert masks.highest(torch.tensor([1.0, 7.0, 2.0, 5.0]), size, allowed).tolist() == expected


def test_of_equal_scores_the_lower_index_wins() -> None:
    assert masks.highest(torch.ones(6), 2, None).tolist() == [0, 1]


def guided_scores(streams: Tensor, guidance: float) -> Tensor:
    """Size per token of what two rows (cond, uncond; N, width) differ in, with guidance."""
    return (streams[1] + guidance * (streams[0] - streams[1])).abs().mean(-1)


@pytest.mark.parametrize("guidance", [1.0, 7.0])
def test_the_mask_is_where_the_models_are_expected_to_disagree_with_guidance(guidance: float) -> None:
    """By what they differed by at the probe, and by both trends once the small model has one."""
    engine, x = stitcher("2L 2M25", guidance=guidance), latents()[0]
    small = Model(small_network())
    sigmas = engine.plan.sigmas
    made = [GRID.to_patches(engine.velocity(both(x, sigma)).velocity) for sigma in sigmas]
    by_small = {index: small.patches(both(x, sigmas[index])) for index in (1, 2)}
    first = guided_scores(made[1] - by_small[1], guidance).topk(6).indices.sort().values
    assert engine.report.masks[2][0].nonzero().flatten().equal(first)

    computed = torch.zeros(TOKENS, dtype=torch.bool).index_fill(0, first, True)
    large_now = [History.begin(made[0][row], sigmas[0]).then(made[1][row], sigmas[1]) for row in (0, 1)]
    large_now = [now.then(made[2][row][computed], sigmas[2], first) for row, now in enumerate(large_now)]
    small_now = [History.begin(by_small[1][row], sigmas[1]).then(by_small[2][row], sigmas[2]) for row in (0, 1)]
    apart = [one.at(sigmas[3]) - other.at(sigmas[3]) for one, other in zip(large_now, small_now)]
    second = guided_scores(torch.stack(apart), guidance).topk(6).indices.sort().values
    assert engine.report.masks[3][0].nonzero().flatten().equal(second)


def test_the_scale_of_guidance_matters_and_every_picture_has_a_mask_of_its_own() -> None:
    found = []
    for guidance in (1.0, 7.0):
        engine = stitcher("2L M25", guidance=guidance)
        sample(engine, (0, 1))
        (mask,) = engine.report.masks.values()
        assert mask.shape == (2, TOKENS) and mask.sum(1).tolist() == [6, 6]
        assert not mask[0].equal(mask[1])
        found.append(mask[0])
    assert not found[0].equal(found[1])


def test_by_change_the_mask_is_where_the_picture_has_moved_since_the_step_before() -> None:
    engine, large = stitcher("2L 2M25 score=change", guidance=3.0), large_model()
    x, clean, chosen = latents(3), [], []
    for index, sigma in enumerate(engine.plan.sigmas):
        call = both(x[index % 3], sigma)
        velocity = GRID.to_patches(engine.velocity(call).velocity)
        clean.append(GRID.to_patches(call.x) - sigma * velocity)
        if index < 2:
            assert torch.allclose(velocity, large.patches(call), atol=1e-6)
        if index > 0:
            chosen.append(guided_scores(clean[-1] - clean[-2], 3.0).topk(6).indices.sort().values)
    for evaluation, expected in zip((2, 3), chosen):
        assert engine.report.masks[evaluation][0].nonzero().flatten().equal(expected)


def test_over_an_extrapolated_background_the_mask_stays_that_of_the_probe() -> None:
    engine = stitcher("2L 3M25x")
    sample(engine)
    first, *others = engine.report.masks.values()
    assert len(others) == 2 and all(mask.equal(first) for mask in others)


# --- RAS ---------------------------------------------------------------------------------------------------------


def test_ras_metric_is_the_deviation_over_channels() -> None:
    latent = torch.zeros(1, 2, 4, 4)
    latent[0, :, :2, :2] = torch.tensor([1.0, 3.0])[:, None, None]
    grid = TokenGrid.of(latent)
    assert masks.ras_metric(grid.to_patches(latent)[0], grid).tolist() == pytest.approx([2**0.5, 0, 0, 0])


@tries(200)
@given(
    metric=st.lists(st.integers(1, 10**6), min_size=4, max_size=40, unique=True), data=st.data(), share=st.floats(0, 1)
)
def test_ras_chooses_by_its_published_rule(metric: list[int], data: st.DataObject, share: float) -> None:
    """Sorted by metric · exp(times skipped), the lowest 70 % of the skipped ones and the highest 30 % are left out."""
    waited = data.draw(st.lists(st.integers(0, 3), min_size=len(metric), max_size=len(metric)))
    raised = [value * exp(count) for value, count in zip(metric, waited)]
    order = sorted(range(len(metric)), key=lambda token: raised[token])
    size = masks.mask_size(share, len(metric))
    skipped = len(metric) - size
    high = int(0.3 * skipped)
    expected = order[skipped - high : len(metric) - high]
    near = [raised[order[i]] / raised[order[i + 1]] for i in range(len(order) - 1)]
    if max(near, default=0) < 1 - 1e-5:  # rounding decides about what is nearer
        chosen = masks.ras_choice(torch.tensor(metric, dtype=torch.float32), torch.tensor(waited).float(), size)
        assert chosen.tolist() == sorted(expected)


def test_ras_lets_a_token_of_little_metric_have_its_turn_when_it_has_waited() -> None:
    metric, waited = torch.arange(1.0, 21.0), torch.zeros(20)
    assert masks.ras_choice(metric, waited, 10).tolist() == list(range(7, 17))
    waited[3] = 1.0
    assert 3 in masks.ras_choice(metric, waited, 10).tolist()


def test_ras_chooses_by_the_guided_velocity_and_how_often_each_token_was_left_out() -> None:
    engine = stitcher("2L 10M25x score=ras hold", guidance=5.0, small=None)
    x = latents()[0]
    made = [GRID.to_patches(engine.velocity(both(x, sigma)).velocity) for sigma in engine.plan.sigmas]
    skipped = torch.zeros(TOKENS)
    for step in range(2, 12):
        guided = made[step - 1][1] + 5 * (made[step - 1][0] - made[step - 1][1])
        mask = engine.report.masks[step][0]
        assert mask.nonzero().flatten().equal(masks.ras_choice(masks.ras_metric(guided, GRID), skipped, 6))
        assert torch.equal(made[step][:, ~mask], made[step - 1][:, ~mask]), "the others hold their last velocity"
        skipped[~mask] += 1


def test_ras_needs_no_small_model() -> None:
    engine = Stitcher(Model(large_network()), None, stitcher("2L M25x score=ras").plan)
    sample(engine)
    assert engine.report.evaluations()[1].tokens_small == 0
