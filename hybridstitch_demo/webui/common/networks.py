"""The built-in LoRA extension: a LoRA of the stand-in adds a little noise, decided by its name, to some weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

loaded_networks: list[SimpleNamespace] = []
"""what is on the model now: .name, .te_multiplier, .unet_multiplier, .mentioned_name, .network_on_disk"""


def network(name: str, te_multiplier: float, unet_multiplier: float) -> SimpleNamespace:
    """A LoRA as the extension lists it."""
    on_disk = SimpleNamespace(name=name, filename=f"models/Lora/{name}.safetensors", shorthash="", alias=name)
    return SimpleNamespace(
        name=name,
        te_multiplier=te_multiplier,
        unet_multiplier=unet_multiplier,
        mentioned_name=name,
        network_on_disk=on_disk,
        dyn_dim=None,
    )


def differences(name: str, parameters: Iterator[tuple[str, Tensor]], prefix: str = "") -> dict[str, Tensor]:
    """What a LoRA adds at full weight: parameter → difference."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    source = torch.Generator().manual_seed(seed)
    chosen = [(key, weight) for key, weight in parameters if key.endswith("x_block.attn.proj.weight")]
    return {prefix + key: 0.2 * torch.randn(weight.shape, generator=source) for key, weight in chosen}


def load_networks(
    names: Sequence[str],
    te_multipliers: Sequence[float] | None = None,
    unet_multipliers: Sequence[float] | None = None,
    dyn_dims: Sequence[Any] | None = None,
) -> None:
    """Put exactly these LoRAs on the current model."""
    from modules import sd_models

    unet_multipliers = unet_multipliers or [1.0] * len(names)
    te_multipliers = te_multipliers or unet_multipliers
    loaded_networks[:] = [network(*one) for one in zip(names, te_multipliers, unet_multipliers)]
    sd_models.apply_networks(sd_models.model_data.get_sd_model(), loaded_networks)
