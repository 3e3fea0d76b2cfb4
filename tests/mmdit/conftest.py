"""Tiny networks of the three SD3 architectures, shared by the tests of this folder."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT

COMMON = {"patch_size": 2, "in_channels": 16, "out_channels": 16, "context_dim": 96, "pooled_dim": 80}
TINY = {
    "SD3-like": MMDiTConfig(depth=2, pos_embed_size=8, qk_norm=False, **COMMON),
    "SD3.5-Large-like": MMDiTConfig(depth=3, pos_embed_size=8, qk_norm=True, **COMMON),
    "SD3.5-Medium-like": MMDiTConfig(depth=3, pos_embed_size=12, qk_norm=True, dual_attention=(0, 1), **COMMON),
}


def random_tensors(config: MMDiTConfig, seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of an architecture in fp32, random and nowhere 0 or 1; weights keep the size of what they map."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in config.expected_shapes().items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(("ln_q.weight", "ln_k.weight")):
            tensors[name] = 1 + 0.3 * noise
        elif name.endswith(".weight"):
            tensors[name] = noise / noise[0].numel() ** 0.5
        else:
            tensors[name] = 0.3 * noise
    return tensors


def random_inputs(config: MMDiTConfig, height: int, width: int, rows: int = 3, seed: int = 1) -> tuple[Tensor, ...]:
    """Latent (rows, C, height, width), t = 1000·σ (rows,), pooled text (rows, P) and 7 text tokens (rows, 7, T)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, config.in_channels, height, width, generator=generator),
        torch.linspace(1000.0, 137.5, rows),
        torch.randn(rows, config.pooled_dim, generator=generator),
        torch.randn(rows, 7, config.context_dim, generator=generator),
    )


def write_header(path: Path, header: Any, data_bytes: int = 0) -> Path:
    """Write a file with any header: JSON of an object, or the text or bytes itself; the data is a hole of zeros."""
    text = header if isinstance(header, (str, bytes)) else json.dumps(header)
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with path.open("r+b") as file:
        file.truncate(8 + len(raw) + data_bytes)
    return path


SMALLEST = MMDiTConfig(1, 1, 1, 1, context_dim=4, pooled_dim=4, pos_embed_size=1, qk_norm=True)


@pytest.fixture(scope="session")
def valid() -> tuple[dict[str, Tensor], bytes]:
    """The smallest checkpoint there is: its tensors and its file."""
    tensors = random_tensors(SMALLEST)
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return tensors, struct.pack("<Q", len(text)) + text + data


def same(network: MMDiT, tensors: dict[str, Tensor]) -> bool:
    """Whether a network has exactly these weights."""
    loaded = network.state_dict()
    return loaded.keys() == tensors.keys() and all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.fixture(params=TINY)
def tiny_config(request: pytest.FixtureRequest) -> MMDiTConfig:
    """Each of the three architectures in turn."""
    return TINY[request.param]


@pytest.fixture
def tiny_configs() -> dict[str, MMDiTConfig]:
    """The three architectures by the name of their family."""
    return dict(TINY)


@pytest.fixture
def make_tensors() -> Callable[..., dict[str, Tensor]]:
    """`random_tensors(config, seed=0)`."""
    return random_tensors


@pytest.fixture
def make_inputs() -> Callable[..., tuple[Tensor, ...]]:
    """`random_inputs(config, height, width, rows=3, seed=1)`."""
    return random_inputs


@pytest.fixture
def write() -> Callable[..., Path]:
    """`write_header(path, header, data_bytes=0)`."""
    return write_header
