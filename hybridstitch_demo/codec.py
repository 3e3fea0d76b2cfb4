"""The demo pair's text encoder and autoencoder in the place of a host's text encoders and VAE."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hybridstitch_demo.autoencoder import CHANNELS, PAIR, load_autoencoder
from hybridstitch_demo.words import encode


class PairCodec:
    """Fits the demo pair; its texts have the same few tokens however long they are."""

    zeroes_empty = False  # the pair learnt what to draw without a prompt

    def __init__(self) -> None:
        self.autoencoder = load_autoencoder(PAIR / "autoencoder.safetensors")

    def encode(
        self,
        texts: Sequence[str],
        per_chunk: int,  # noqa: ARG002 - a host's lengths
        once: int,  # noqa: ARG002
        width: int,
        pooled: int,
    ) -> dict[str, Tensor]:
        """Texts as tokens (texts, length, width) and vectors (texts, pooled)."""
        context, vector = encode(list(texts))
        assert (context.shape[2], vector.shape[1]) == (width, pooled), "the network is the pair's"
        return {"crossattn": context, "vector": vector}

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (images, 16, H, W) as pictures (images, 3, 8·H, 8·W) in -1..1."""
        return self.autoencoder.decode(latents.float()) * 2 - 1

    def encode_image(self, pictures: Tensor, channels: int) -> Tensor:
        """Pictures (images, 3, H, W) in -1..1 as latents (images, 16, H/8, W/8)."""
        assert channels == CHANNELS, "the network is the pair's"
        return self.autoencoder.encode((pictures.float() + 1) / 2)
