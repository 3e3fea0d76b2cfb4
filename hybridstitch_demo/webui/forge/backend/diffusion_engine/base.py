"""The parts of a model that extensions patch."""

from __future__ import annotations

from typing import Any


class ForgeObjects:
    """Transformer, text encoders, VAE."""

    def __init__(self, unet: Any, clip: Any, vae: Any, clipvision: Any) -> None:
        self.unet, self.clip, self.vae, self.clipvision = unet, clip, vae, clipvision

    def shallow_copy(self) -> ForgeObjects:
        """Another holder of the same parts."""
        return ForgeObjects(self.unet, self.clip, self.vae, self.clipvision)
