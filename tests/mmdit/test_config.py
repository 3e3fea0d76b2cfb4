"""Architectures are recognised from tensor shapes, and what does not add up is refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from lib_hybridstitch.errors import CheckpointError, PairError
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT

RELEASED = {"patch_size": 2, "in_channels": 16, "out_channels": 16, "context_dim": 4096, "pooled_dim": 2048}
SD3_MEDIUM = MMDiTConfig(depth=24, pos_embed_size=192, qk_norm=False, **RELEASED)
SD35_LARGE = MMDiTConfig(depth=38, pos_embed_size=192, qk_norm=True, **RELEASED)
SD35_MEDIUM = MMDiTConfig(depth=24, pos_embed_size=384, qk_norm=True, dual_attention=tuple(range(13)), **RELEASED)
released = pytest.mark.parametrize(
    "config", [SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM], ids=["SD3-medium", "SD3.5-Large", "SD3.5-Medium"]
)

Shapes = dict[str, tuple[int, ...]]


@released
def test_released_architectures_are_recognised(config: MMDiTConfig) -> None:
    assert MMDiTConfig.from_tensors(config.expected_shapes()) == config


@released
def test_network_has_the_expected_tensors(config: MMDiTConfig) -> None:
    with torch.device("meta"):
        network = MMDiT(config)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == config.expected_shapes()


@pytest.mark.parametrize(
    ("config", "billions", "hidden", "family"),
    [
        (SD3_MEDIUM, 2.03, 1536, "SD3-like"),
        (SD35_LARGE, 8.06, 2432, "SD3.5-Large-like"),
        (SD35_MEDIUM, 2.24, 1536, "SD3.5-Medium-like"),
    ],
)
def test_released_sizes(config: MMDiTConfig, billions: float, hidden: int, family: str) -> None:
    """Parameters (without the fixed positions) as published: 2, 8.1 and 2.5 billion, the last with its positions."""
    shapes = config.expected_shapes()
    count = sum(torch.Size(shape).numel() for name, shape in shapes.items() if name != "pos_embed")
    assert count / 1e9 == pytest.approx(billions, abs=0.01)
    assert (config.hidden, config.heads, config.family) == (hidden, config.depth, family)


def test_shapes_of_some_released_tensors() -> None:
    """Numbers to be checked by hand: 64 · 24 = 1536, 64 · 38 = 2432, 9 · 1536 = 13824, 384² = 147456."""
    medium, large = SD35_MEDIUM.expected_shapes(), SD35_LARGE.expected_shapes()
    assert medium["pos_embed"] == (1, 147456, 1536)
    assert medium["joint_blocks.12.x_block.adaLN_modulation.1.weight"] == (13824, 1536)
    assert medium["joint_blocks.13.x_block.adaLN_modulation.1.weight"] == (9216, 1536)
    assert "joint_blocks.13.x_block.attn2.qkv.weight" not in medium
    assert large["joint_blocks.37.context_block.adaLN_modulation.1.weight"] == (4864, 2432)
    assert "joint_blocks.37.context_block.attn.proj.weight" not in large
    assert large["final_layer.linear.weight"] == (64, 2432)


def test_tiny_architectures_are_recognised(tiny_config: MMDiTConfig) -> None:
    assert MMDiTConfig.from_tensors(tiny_config.expected_shapes()) == tiny_config


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("x_embedder.proj.weight", None, "x_embedder.proj.weight is missing, expected an SD3 or SD3.5 transformer"),
        ("x_embedder.proj.weight", (193, 16, 2, 2), "193 output channels, expected a multiple of 64"),
        ("x_embedder.proj.weight", (0, 16, 2, 2), "0 output channels, expected a multiple of 64"),
        ("x_embedder.proj.weight", (192, 64), "shape [192, 64], expected 4 dimensions"),
        ("x_embedder.proj.weight", (128, 16, 2, 2), "found 3 joint_blocks, expected 2"),
        ("x_embedder.proj.weight", (64_000_000, 16, 2, 2), "found 3 joint_blocks, expected 1000000"),
        ("pos_embed", (1, 63, 192), "pos_embed has 63 positions, expected a square number"),
        ("pos_embed", (1, 0, 192), "pos_embed has 0 positions, expected a square number"),
        ("pos_embed", (1, 64, 128), "pos_embed has shape [1, 64, 128], expected [1, 64, 192]"),
        ("final_layer.linear.weight", (63, 192), "final_layer.linear.weight has 63 rows, expected a multiple of 4"),
        ("context_embedder.weight", (192,), "context_embedder.weight has shape [192], expected 2 dimensions"),
        ("y_embedder.mlp.0.weight", None, "y_embedder.mlp.0.weight is missing"),
        ("joint_blocks.1.x_block.mlp.fc1.bias", None, "joint_blocks.1.x_block.mlp.fc1.bias is missing"),
        ("joint_blocks.1.x_block.mlp.fc1.bias", (5,), "fc1.bias has shape [5], expected [768] for 3 joint blocks"),
        ("joint_blocks.1.x_block.attn.ln_q.weight", None, "joint_blocks.1.x_block.attn.ln_q.weight is missing"),
        ("joint_blocks.7.x_block.attn.qkv.bias", (576,), "found 4 joint_blocks, expected 3"),
        ("joint_blocks.0.x_block.attn3.qkv.bias", (576,), "attn3.qkv.bias is not part of an SD3-shaped transformer"),
        ("joint_blocks.2.x_block.attn2.qkv.weight", (576, 192), "joint_blocks.2.x_block"),
        ("joint_blocks.x.x_block.attn2.qkv.weight", (576, 192), "found 4 joint_blocks, expected 3"),
        ("register_tokens", (1, 4, 192), "register_tokens is not part of an SD3-shaped transformer"),
    ],
)
def test_what_does_not_add_up_is_refused(
    tiny_configs: dict[str, MMDiTConfig], name: str, shape: tuple[int, ...] | None, sentence: str
) -> None:
    shapes: Shapes = tiny_configs["SD3.5-Large-like"].expected_shapes()
    shapes.pop(name, None)
    if shape is not None:
        shapes[name] = shape
    with pytest.raises(CheckpointError) as caught:
        MMDiTConfig.from_tensors(shapes, "blue.safetensors")
    assert str(caught.value).startswith("blue.safetensors: ")
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("large", [SD35_LARGE, SD3_MEDIUM], ids=["SD3.5-Large", "SD3-medium"])
def test_a_released_pair_is_accepted(large: MMDiTConfig) -> None:
    large.check_pair(SD35_MEDIUM)


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("in_channels", 4, "latent channels are 16 and 4"),
        ("out_channels", 4, "predicted channels are 16 and 4"),
        ("patch_size", 1, "patch size are 2 and 1"),
        ("context_dim", 2048, "text width are 4096 and 2048"),
        ("pooled_dim", 768, "pooled text width are 2048 and 768"),
    ],
)
def test_a_pair_that_shares_too_little_is_refused(field: str, value: int, label: str) -> None:
    small = MMDiTConfig(depth=24, pos_embed_size=192, qk_norm=True, **{**RELEASED, field: value})
    with pytest.raises(PairError, match=f"red and green cannot be stitched: {label}"):
        SD35_LARGE.check_pair(small, "red", "green")
