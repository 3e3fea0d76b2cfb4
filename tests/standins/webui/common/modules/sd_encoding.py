"""The stand-in's text encoders and VAE, which every host shares; no real host has this module.

A text becomes numbers drawn from its own hash. Lengths are the hosts' divided by seven: 11 tokens per chunk for 77, 36
for Forge's 256; a chunk holds ten words for 75 tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_WORDS = 10
CLIP_TOKENS = 11
FORGE_T5_TOKENS = 36
SCALE = 8  # pixels per latent pixel


def chunks(texts: Sequence[str]) -> int:
    """How many chunks the longest text takes."""
    return max(1, *(-(-len(text.split()) // CHUNK_WORDS) for text in texts))


def encode(texts: Sequence[str], length: int, width: int, pooled: int) -> dict[str, Tensor]:
    """Texts as tokens (texts, length, width) and vectors (texts, pooled)."""
    tokens, vectors = [], []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:6], "little")
        source = torch.Generator().manual_seed(seed)
        vectors.append(torch.randn(pooled, generator=source))
        tokens.append(torch.randn(length, width, generator=source))
    return {"crossattn": torch.stack(tokens), "vector": torch.stack(vectors)}


def decode(latents: Tensor) -> Tensor:
    """Latents (images, C, H, W) as pictures (images, 3, 8·H, 8·W) in -1..1."""
    return functional.interpolate(torch.tanh(latents[:, :3].float()), scale_factor=SCALE)


def encode_image(pictures: Tensor, channels: int) -> Tensor:
    """Pictures (images, 3, H, W) in -1..1 as latents."""
    small = functional.avg_pool2d(pictures.float(), SCALE)
    return torch.cat([small * (1 + index / 4) for index in range(-(-channels // 3))], dim=1)[:, :channels]
