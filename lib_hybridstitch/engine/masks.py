"""How complex is each token, and which ones the large model computes.

All rows of one picture share one mask: guidance multiplies the difference of its rows, so that a token computed by
different models in different rows would turn their disagreement into artefacts. For the same reason the rows' signals
are put together as guidance puts together velocities before their size is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from lib_hybridstitch.engine.evaluation import UNCOND
from lib_hybridstitch.mmdit.tokens import TokenGrid

RAS_STARVATION = 1.0
RAS_HIGH_SHARE = 0.3
"""RAS' published settings for SD3: how much waiting raises a score; the share of skipped tokens from the top."""


def guided(signals: Mapping[str, Tensor], guidance: float) -> Tensor:
    """The signals of a picture's rows put together as guidance puts together velocities, (N, width).

    Args:
        signals: stream → patches (N, width): what differs between the models, or between two steps.
        guidance: the scale; without a row for the negative prompt it does not matter.
    """
    prompts = [signal for stream, signal in signals.items() if not stream.startswith(UNCOND)]
    others = [signal for stream, signal in signals.items() if stream.startswith(UNCOND)]
    if not prompts or not others:
        return torch.stack(prompts or others).mean(0)
    cond, uncond = torch.stack(prompts).mean(0), torch.stack(others).mean(0)
    return torch.lerp(uncond, cond, guidance)


def mask_size(ratio: float, count: int) -> int:
    """Tokens in a mask: round(ratio · count), halves upwards."""
    return int(ratio * count + 0.5)


def highest(scores: Tensor, size: int, region: Tensor | None) -> Tensor:
    """The `size` tokens of one picture with the highest scores.

    Args:
        scores: (N,).
        region: (N,) bool, the tokens that may be chosen (inpainting); None for all.

    Returns:
        token indices (K,), ascending; of equal scores the lower index wins, so that no mask depends on the machine.
    """
    if region is not None:
        region = region.to(scores.device)
        scores, size = torch.where(region, scores, -torch.inf), min(size, int(region.sum()))
    return scores.sort(descending=True, stable=True).indices[:size].sort().values


def ras_metric(velocity: Tensor, grid: TokenGrid) -> Tensor:
    """RAS' score (N,) of a guided velocity (N, width): its spread over the channels, per token."""
    return functional.avg_pool2d(grid.to_latent(velocity[None]).std(1), grid.patch).flatten()


def ras_choice(metric: Tensor, skipped: Tensor, size: int) -> Tensor:
    """RAS' choice for one picture: skip the lowest and some of the highest scores, raised by how often a token waited.

    Args:
        metric: (N,).
        skipped: (N,) evaluations for which each token was not computed.
        size: tokens to compute.
    """
    raised = metric * torch.exp(RAS_STARVATION * (skipped - skipped.max()))
    order = raised.sort(stable=True).indices
    left_out = len(order) - size
    top = int(left_out * RAS_HIGH_SHARE)
    return order[left_out - top : len(order) - top].sort().values
