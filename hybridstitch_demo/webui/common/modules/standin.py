"""What the stand-in is made of and what it writes down; no real host has this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ModelCall:
    """One call of the large model by the host.

    Args:
        rows: of the batch.
        t: what stands for time in the call: 1000·σ on A1111, σ on Forge.
        context: text tokens.
        chunks: Forge's `cond_or_uncond`; empty on A1111.
    """

    rows: int
    t: float
    context: int
    chunks: tuple[int, ...] = ()


@dataclass
class Journal:
    """Everything since the stand-in was installed.

    Args:
        hooks: the host's steps and the hooks it called, in order; an evaluation is "on_cfg_denoiser", "model" per call,
            "on_cfg_denoised", "on_cfg_after_cfg".
        calls: of the large model.
        swallowed: exceptions that the host reported and went on from.
        latents: what each batch's sampling ended with, before decoding.
    """

    hooks: list[str] = field(default_factory=list)
    calls: list[ModelCall] = field(default_factory=list)
    swallowed: list[Exception] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)

    def call(self, x: Tensor, t: Tensor, context: Tensor, chunks: tuple[int, ...] = ()) -> None:
        """Note a call of the large model."""
        self.hooks.append("model")
        self.calls.append(ModelCall(x.shape[0], float(t.flatten()[0]), context.shape[1], chunks))


@dataclass
class Parts:
    """What was chosen when the stand-in was installed.

    Args:
        codec: text encoders and VAE.
        reads_norms: whether A1111's network has the q/k norms that a file holds; A1111 itself leaves them out, and
            draws SD3.5-Large garbled.
    """

    codec: Any = None
    reads_norms: bool = False


journal = Journal()
parts = Parts()
