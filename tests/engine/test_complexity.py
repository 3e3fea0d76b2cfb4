"""Scores and masks, on numbers one can check by hand."""

from __future__ import annotations

import pytest
import torch

from lib_hybridstitch.engine import complexity
from lib_hybridstitch.mmdit.tokens import TokenGrid

GRID = TokenGrid(2, 2)


def test_disagreement_is_the_mean_difference():
    large, small = torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)
    small[0, 2] = -3.0
    assert complexity.disagreement(large, small).tolist() == [[0, 0, 3, 0]]


def test_change_is_relative():
    before = torch.ones(1, 2, 8)
    now = torch.stack([torch.ones(8), torch.full((8,), 1.5)])[None]
    assert complexity.change(now, before)[0].tolist() == pytest.approx([0, 0.5], abs=1e-5)


def test_detail_is_zero_on_flat_ground_and_highest_at_the_edge():
    latent = torch.zeros(1, 1, 8, 8)
    latent[..., 4:] = 1.0
    grid = TokenGrid.of(latent)
    score = complexity.detail(grid.to_patches(latent), grid).view(4, 4)
    assert torch.equal(score[:, 0], torch.zeros(4)) and torch.equal(score[:, 3], torch.zeros(4))
    # 3×3 windows on both sides of the edge hold 3 or 6 ones of 9: deviation √(2/9); half of each token's pixels.
    assert score[:, 1:3].flatten().tolist() == pytest.approx([(2 / 9) ** 0.5 / 2] * 8, abs=1e-4)


def test_ras_metric_is_the_deviation_over_channels():
    latent = torch.zeros(1, 2, 4, 4)
    latent[0, :, :2, :2] = torch.tensor([1.0, 3.0])[:, None, None]
    grid = TokenGrid.of(latent)
    assert complexity.ras_metric(grid.to_patches(latent), grid)[0].tolist() == pytest.approx([2**0.5, 0, 0, 0])


def test_smooth_is_the_mean_of_nine():
    field = torch.zeros(1, 9)
    field[0, 4] = 9.0
    assert complexity.smooth(field, TokenGrid(3, 3))[0].tolist() == [1.0] * 9


@pytest.mark.parametrize(("ratio", "size"), [(0, 0), (0.3, 19), (0.5, 32), (1, 64), (0.0078125, 1)])
def test_mask_size(ratio, size):
    assert complexity.mask_size(ratio, 64) == size


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 2}, [1, 3]),
        ({"size": 4}, [0, 1, 2, 3]),
        ({"size": 0}, []),
        ({"size": 3, "threshold": 4.0}, [1, 3]),
        ({"size": 1, "threshold": 4.0}, [1]),
        ({"size": 3, "threshold": 99.0}, []),
        ({"size": 2, "region": torch.tensor([True, False, True, True])}, [2, 3]),
        ({"size": 4, "region": torch.tensor([True, False, False, False])}, [0]),
    ],
)
def test_highest(options, expected):
    assert complexity.highest(torch.tensor([1.0, 7.0, 2.0, 5.0]), **options).tolist() == expected


def test_equal_scores_go_to_the_lower_index():
    assert complexity.highest(torch.ones(6), 2).tolist() == [0, 1]


def test_ras_skips_most_of_the_lowest_some_of_the_highest_and_starves_nobody():
    metric = torch.arange(1.0, 21.0)
    never = torch.zeros(20)
    # Of 10 skipped tokens 30 % come from the top: 7 lowest and 3 highest are left out.
    assert complexity.ras_choice(metric, never, 10).tolist() == list(range(7, 17))
    waited = never.clone()
    waited[3] = 1.0
    assert 3 in complexity.ras_choice(metric, waited, 10).tolist()
