"""How complex is each token, and which ones the large model computes.

Scores are (rows, N), higher where the large model is needed more; they are averaged over the streams of one image, and
all streams share one mask: guidance multiplies their difference, so that a token computed by different models in
different streams would turn model disagreement into artefacts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lib_hybridstitch.mmdit.tokens import TokenGrid

RAS_STARVATION = 1.0
RAS_HIGH_SHARE = 0.3
"""RAS' published settings for SD3: how much waiting raises a score; the share of skipped tokens from the top."""
TINY = 1e-6


def disagreement(large: Tensor, small: Tensor) -> Tensor:
    """Mean |v_large − v_small| per token, over patches (rows, N, width)."""
    return (large - small).abs().mean(-1)


def change(clean: Tensor, previous: Tensor) -> Tensor:
    """Change of x0 since the previous evaluation relative to its size, over patches (rows, N, width)."""
    return (clean - previous).abs().mean(-1) / (previous.abs().mean(-1) + TINY)


def detail(clean: Tensor, grid: TokenGrid) -> Tensor:
    """Standard deviation of x0 over 3×3 latent pixels, averaged over channels and the token's pixels.

    Args:
        clean: estimate of x0 as patches (rows, N, width).
    """
    latent = grid.to_latent(clean)
    variance = _box_mean(latent * latent) - _box_mean(latent).square()
    per_pixel = variance.clamp_min(0).sqrt().mean(1, keepdim=True)
    return functional.avg_pool2d(per_pixel, grid.patch).flatten(1)


def _box_mean(field: Tensor) -> Tensor:
    """Mean over 3×3 pixels of (rows, channels, H, W), edges repeated; sums of slices are far faster than pooling."""
    padded = functional.pad(field, (1, 1, 1, 1), mode="replicate")
    across = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]) / 9


def ras_metric(velocity: Tensor, grid: TokenGrid) -> Tensor:
    """RAS' metric: standard deviation of the predicted velocity over channels, averaged over the token's pixels."""
    return functional.avg_pool2d(grid.to_latent(velocity).std(1, keepdim=True), grid.patch).flatten(1)


def smooth(scores: Tensor, grid: TokenGrid) -> Tensor:
    """Mean over 3×3 tokens, so that masks are patches and not dust; scores (images, N)."""
    return _box_mean(scores.view(-1, 1, grid.height, grid.width)).flatten(1)


def mask_size(ratio: float, count: int) -> int:
    """Tokens in a mask: round(ratio · count), halves upwards."""
    return min(count, int(ratio * count + 0.5))


def highest(scores: Tensor, size: int, threshold: float = 0.0, region: Tensor | None = None) -> Tensor:
    """Choose one image's mask.

    Args:
        scores: (N,).
        size: tokens at the most.
        threshold: when positive, only tokens scoring above it.
        region: (N,) bool, the tokens that may be chosen (inpainting); None for all.

    Returns:
        token indices (K,), ascending; of equal scores the lower index wins, so that no mask depends on the machine.
    """
    allowed = torch.ones_like(scores, dtype=torch.bool) if region is None else region.to(scores.device)
    if threshold > 0:
        allowed = allowed & (scores > threshold)
    if region is not None or threshold > 0:
        size = min(size, int(allowed.sum()))
    order = torch.where(allowed, scores, -torch.inf).sort(descending=True, stable=True).indices
    return order[:size].sort().values


def ras_choice(metric: Tensor, skipped: Tensor, size: int) -> Tensor:
    """RAS' choice for one image: skip the lowest and some of the highest scores, raised by how often a token waited.

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
