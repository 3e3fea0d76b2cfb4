"""Text encoders and VAE without weights: a text becomes numbers drawn from its own hash, a picture its own colours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_WORDS = 10
"""Words per chunk, for the 75 tokens of the hosts."""
SCALE = 8


class HashCodec:
    """Fits networks of any width."""

    zeroes_empty = True

    def encode(self, texts: Sequence[str], per_chunk: int, once: int, width: int, pooled: int) -> dict[str, Tensor]:
        """Texts as tokens (texts, length, width) and vectors (texts, pooled)."""
        chunks = max(1, *(-(-len(text.split()) // CHUNK_WORDS) for text in texts))
        tokens, vectors = [], []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:6], "little")
            source = torch.Generator().manual_seed(seed)
            vectors.append(torch.randn(pooled, generator=source))
            tokens.append(torch.randn(per_chunk * chunks + once, width, generator=source))
        return {"crossattn": torch.stack(tokens), "vector": torch.stack(vectors)}

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (images, C, H, W) as pictures (images, 3, 8·H, 8·W) in -1..1."""
        return functional.interpolate(torch.tanh(latents[:, :3].float()), scale_factor=SCALE)

    def encode_image(self, pictures: Tensor, channels: int) -> Tensor:
        """Pictures (images, 3, H, W) in -1..1 as latents."""
        small = functional.avg_pool2d(pictures.float(), SCALE)
        return torch.cat([small * (1 + index / 4) for index in range(-(-channels // 3))], dim=1)[:, :channels]
