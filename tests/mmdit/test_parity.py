"""Parity with code that nobody here wrote: diffusers' `SD3Transformer2DModel` with the same weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.diffusers_network import diffusers_network
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT


@pytest.mark.parametrize(("height", "width"), [(16, 16), (10, 14), (14, 6)])
@torch.no_grad()
def test_parity_with_diffusers(
    tiny_config: MMDiTConfig, make_tensors: Callable, make_inputs: Callable, height: int, width: int
) -> None:
    tensors = make_tensors(tiny_config)
    ours = MMDiT(tiny_config).eval()
    ours.load_state_dict(tensors, strict=True)
    x, t, pooled, context = make_inputs(tiny_config, height, width)
    theirs = diffusers_network(tiny_config, tensors)(x, context, pooled, t, return_dict=False)[0]
    velocity = ours(x, t, pooled, context)
    assert velocity.shape == theirs.shape == x.shape
    assert theirs.std() > 0.1
    assert (velocity - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
def test_every_tensor_matters(tiny_config: MMDiTConfig, make_tensors: Callable, make_inputs: Callable) -> None:
    """Parity at random weights says something about a tensor only if changing it changes the result.

    One tensor is idle by design: the last block throws its context's attention away, and with it those queries.
    """
    network = MMDiT(tiny_config).eval()
    network.load_state_dict(make_tensors(tiny_config), strict=True)
    inputs = make_inputs(tiny_config, 8, 8, rows=1)
    before = network(*inputs)
    idle = []
    for name, tensor in network.state_dict().items():
        original = tensor.clone()
        tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
        if (network(*inputs) - before).abs().max() <= 1e-3 * before.abs().max():
            idle.append(name)
        tensor.copy_(original)
    last_queries = f"joint_blocks.{tiny_config.depth - 1}.context_block.attn.ln_q.weight"
    assert idle == ([last_queries] if tiny_config.qk_norm else [])
