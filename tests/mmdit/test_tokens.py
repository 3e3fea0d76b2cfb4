"""The token grid, and picking tokens."""

from __future__ import annotations

import pytest
import torch

from lib_hybridstitch.mmdit.tokens import TokenGrid, complement, gather, is_shared, scatter_, shared
from tests.networks import LARGE, random_network


def test_patches_and_latent_are_inverse_and_in_the_networks_order():
    latent = torch.arange(2 * 4 * 8 * 12.0).view(2, 4, 8, 12)
    grid = TokenGrid.of(latent)
    assert (grid.height, grid.width, grid.count) == (4, 6, 24)
    patches = grid.to_patches(latent)
    assert patches.shape == (2, 24, 16)
    assert torch.equal(grid.to_latent(patches), latent)
    assert torch.equal(random_network(LARGE).unpatchify(patches, (8, 12)), latent)
    # Token 7 is row 1, column 1: its first pixel is latent pixel (2, 2), all four channels together.
    assert torch.equal(patches[0, 7, :4], latent[0, :, 2, 2])


def test_a_latent_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="7×8"):
        TokenGrid.of(torch.zeros(1, 4, 7, 8))


@pytest.mark.parametrize("tokens", [torch.tensor([[0, 2], [1, 3]]), shared(torch.tensor([1, 2]), 2)])
def test_gather_scatter_and_complement(tokens):
    source = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    picked = gather(source, tokens)
    by_hand = torch.stack([source[row, tokens[row]] for row in range(2)])
    assert torch.equal(picked, by_hand)
    assert torch.equal(scatter_(source.clone(), tokens, picked), source)
    zeroed = scatter_(source.clone(), tokens, torch.zeros_like(picked))
    rest = complement(tokens, 4)
    assert torch.equal(gather(zeroed, rest), gather(source, rest))
    assert float(gather(zeroed, tokens).abs().sum()) == 0
    assert [sorted([*a.tolist(), *b.tolist()]) for a, b in zip(tokens, rest)] == [[0, 1, 2, 3]] * 2


def test_shared_is_known_without_looking():
    assert is_shared(shared(torch.tensor([1, 2]), 3))
    assert not is_shared(torch.tensor([[1, 2], [1, 2]]))
