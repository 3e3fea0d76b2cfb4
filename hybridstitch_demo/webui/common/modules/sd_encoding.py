"""The stand-in's text encoders and VAE, which every host shares; no real host has this module.

What they compute is a codec's, chosen when the stand-in is installed. Lengths are the hosts' divided by seven: 11
tokens per chunk for 77, 36 for Forge's 256.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from modules import standin

CLIP_TOKENS = 11
FORGE_T5_TOKENS = 36
SCALE = 8  # pixels per latent pixel


def encode(texts: Sequence[str], per_chunk: int, once: int, width: int, pooled: int) -> dict[str, Tensor]:
    """Texts as "crossattn" (texts, length, width) and "vector" (texts, pooled)."""
    encoded: dict[str, Tensor] = standin.parts.codec.encode(texts, per_chunk, once, width, pooled)
    return encoded


def zeroes_empty(texts: Sequence[str]) -> bool:
    """Whether these are negative prompts without a word, which become zeros on Forge."""
    negative = getattr(texts, "is_negative_prompt", False)
    return bool(standin.parts.codec.zeroes_empty and negative and all(text == "" for text in texts))


def decode(latents: Tensor) -> Tensor:
    """Latents (images, C, H, W) as pictures (images, 3, 8·H, 8·W) in -1..1."""
    pictures: Tensor = standin.parts.codec.decode(latents)
    return pictures


def encode_image(pictures: Tensor, channels: int) -> Tensor:
    """Pictures (images, 3, H, W) in -1..1 as latents (images, channels, H/8, W/8)."""
    latents: Tensor = standin.parts.codec.encode_image(pictures, channels)
    return latents
