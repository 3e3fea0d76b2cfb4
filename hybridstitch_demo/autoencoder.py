"""The demo pair's autoencoder: pictures to 16-channel latents of an eighth of their edge, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 16
FACTOR = 8
PAIR = Path(__file__).parent / "pair"
"""Where the trained weights lie."""


class Residual(nn.Module):
    """Two 3×3 convolutions around a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, width, H, W) to the same shape."""
        return x + self.second(functional.silu(self.first(functional.silu(x))))


class Autoencoder(nn.Module):
    """A small convolutional autoencoder whose latents have zero mean and unit variance per channel.

    Args:
        width: channels at an eighth of the resolution.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        half = width // 2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, half, 1),
            Residual(half),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * half, width, 1),
            Residual(width),
            nn.Conv2d(width, CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(CHANNELS, width, 3, padding=1, padding_mode="replicate"),
            Residual(width),
            Residual(width),
            nn.Conv2d(width, 4 * half, 1),
            nn.PixelShuffle(2),
            Residual(half),
            Residual(half),
            nn.Conv2d(half, 48, 3, padding=1, padding_mode="replicate"),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.zeros(1, CHANNELS, 1, 1))
        self.register_buffer("deviation", torch.ones(1, CHANNELS, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Map pictures (rows, 3, H, W) in 0..1 to latents (rows, 16, H/8, W/8)."""
        return (self.encoder(pictures * 2 - 1) - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents (rows, 16, h, w) to pictures (rows, 3, 8h, 8w) in 0..1."""
        return (self.decoder(latents * self.deviation + self.mean) / 2 + 0.5).clamp(0, 1)


def load_autoencoder(path: Path) -> Autoencoder:
    """Load the autoencoder from a safetensors file of any floating dtype, ready for use in fp32."""
    model = Autoencoder()
    model.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return model.eval().requires_grad_(False)
