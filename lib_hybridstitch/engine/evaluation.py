"""One evaluation as the sampler makes it, and one model as the engine calls it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.model import attention as default_attention
from lib_hybridstitch.mmdit.partial import Attention, Network, patch_size, run
from lib_hybridstitch.mmdit.tokens import TokenGrid

COND, UNCOND = "cond", "uncond"
Row = tuple[int, str]
"""(image, stream): which picture of the batch a row belongs to, and whether it is `COND` or `UNCOND`; the further
prompts that AND joins have names of their own."""


@dataclass(frozen=True)
class Prediction:
    """What a full pass made of an evaluation.

    Args:
        velocity: (rows, channels, H, W).
        own: the model's own answer in the host's terms, which the host gets back untouched.
    """

    velocity: Tensor
    own: Tensor | None = None


@dataclass(frozen=True)
class Evaluation:
    """One call of a network as the sampler, or the host, makes it.

    Args:
        x: latent (rows, channels, H, W).
        sigma: flow noise level per row, (rows,); all rows of a call are at one level.
        context: text tokens (rows, L, width).
        pooled: pooled text (rows, width).
        rows: what each row is.
        full_pass: the large model's own full pass of this evaluation, or of a part of it.
        skip_layers: joint blocks which the large model leaves out.
        control: residuals (rows, N, hidden) for the large model.
    """

    x: Tensor
    sigma: Tensor
    context: Tensor
    pooled: Tensor
    rows: tuple[Row, ...]
    full_pass: Callable[[Evaluation], Prediction]
    skip_layers: Collection[int] = ()
    control: Sequence[Tensor] | None = None

    def part(self, chosen: Sequence[int]) -> Evaluation:
        """The evaluation of some of its rows."""
        index = torch.tensor(list(chosen), device=self.x.device)
        control = None if self.control is None else [residual[index] for residual in self.control]
        return replace(
            self,
            x=self.x[index],
            sigma=self.sigma[index],
            context=self.context[index],
            pooled=self.pooled[index],
            rows=tuple(self.rows[i] for i in chosen),
            control=control,
        )


@dataclass(frozen=True)
class Model:
    """One of the two networks, as the engine calls it.

    Args:
        network: module of the reference structure.
        own_pass: the host's own full pass; ours when None.
        dtype, device: where it computes; those of the latent when None.
        attention: the attention to compute with.
        guided_by_layers: whether skipped layers and control residuals act on it, as they do on the large model.
    """

    network: Network
    own_pass: Callable[[Evaluation], Prediction] | None = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    attention: Attention = default_attention
    guided_by_layers: bool = False

    def full_pass(self, call: Evaluation) -> Prediction:
        """Velocity of the whole latent, by the host's own pass where there is one."""
        if self.own_pass is not None:
            return self.own_pass(call)
        return Prediction(TokenGrid.of(call.x, patch_size(self.network)).to_latent(self.patches(call)))

    def patches(self, call: Evaluation, tokens: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Velocity of the chosen tokens as patches (rows, K, width), in the latent's dtype and device."""
        device, dtype = self.device or call.x.device, self.dtype or call.x.dtype

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        options: dict[str, Any] = {"rows": call.rows, "attention": self.attention}
        if self.guided_by_layers:
            options["skip_layers"] = call.skip_layers
            options["control"] = None if call.control is None else [moved(residual) for residual in call.control]
        result = run(
            self.network,
            moved(call.x),
            call.sigma.to(device),
            moved(call.context),
            moved(call.pooled),
            None if tokens is None else tokens.to(device),
            cache,
            **options,
        )
        return result.to(device=call.x.device, dtype=call.x.dtype)
