"""The token grid of a latent, and picking some of its tokens.

A set of tokens is an integer tensor (rows, K): per row, ascending indices into the row-major token grid. Where all rows
share one set it is an expanded view (`shared`), which lets gather and scatter take a faster path without looking at
values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """How a latent is cut into tokens.

    Args:
        height, width: tokens per column and per row of the latent.
        patch: edge of a token in latent pixels.
    """

    height: int
    width: int
    patch: int = 2

    @classmethod
    def of(cls, latent: Tensor, patch: int = 2) -> TokenGrid:
        """Return the grid of a latent (rows, channels, H, W).

        Raises:
            ValueError: when H or W is not a multiple of `patch`.
        """
        height, width = latent.shape[-2:]
        if height % patch or width % patch:
            raise ValueError(f"a latent of {height}×{width} cannot be cut into tokens of {patch}×{patch}")
        return cls(height // patch, width // patch, patch)

    @property
    def count(self) -> int:
        """Tokens in the whole grid."""
        return self.height * self.width

    def to_patches(self, latent: Tensor) -> Tensor:
        """Cut a latent (rows, C, H, W) into patches (rows, N, patch²·C): pixel rows, columns, then channels."""
        rows, channels = latent.shape[:2]
        cut = latent.reshape(rows, channels, self.height, self.patch, self.width, self.patch)
        return cut.permute(0, 2, 4, 3, 5, 1).reshape(rows, self.count, self.patch**2 * channels)

    def to_latent(self, patches: Tensor) -> Tensor:
        """Undo `to_patches`: arrange (rows, N, patch²·C) as a latent (rows, C, H, W)."""
        rows, _, width = patches.shape
        channels = width // self.patch**2
        cut = patches.reshape(rows, self.height, self.width, self.patch, self.patch, channels)
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(rows, channels, self.height * self.patch, self.width * self.patch)


def shared(indices: Tensor, rows: int) -> Tensor:
    """Give one set of tokens (K,) to all `rows` as an expanded view (rows, K)."""
    return indices.unsqueeze(0).expand(rows, -1)


def is_shared(tokens: Tensor) -> bool:
    """Whether all rows of `tokens` (rows, K) are one view of the same set; never looks at the values."""
    return tokens.shape[0] == 1 or tokens.stride(0) == 0


def gather(source: Tensor, tokens: Tensor) -> Tensor:
    """Pick tokens (rows, K) out of source (rows, N, ...); returns (rows, K, ...)."""
    if is_shared(tokens):
        return source.index_select(1, tokens[0])
    return source[torch.arange(source.shape[0], device=tokens.device).unsqueeze(1), tokens]


def scatter_(target: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """Write values (rows, K, ...) into target (rows, N, ...) at tokens (rows, K), in place; returns target."""
    if is_shared(tokens):
        return target.index_copy_(1, tokens[0], values)
    target[torch.arange(target.shape[0], device=tokens.device).unsqueeze(1), tokens] = values
    return target


def complement(tokens: Tensor, count: int) -> Tensor:
    """Return the tokens (rows, count − K) that are not in `tokens` (rows, K), ascending."""
    if is_shared(tokens):
        left = torch.ones(count, dtype=torch.bool, device=tokens.device)
        left[tokens[0]] = False
        return shared(left.nonzero().squeeze(1), tokens.shape[0])
    left = torch.ones(tokens.shape[0], count, dtype=torch.bool, device=tokens.device)
    left.scatter_(1, tokens, False)
    return left.nonzero()[:, 1].view(tokens.shape[0], count - tokens.shape[1])
