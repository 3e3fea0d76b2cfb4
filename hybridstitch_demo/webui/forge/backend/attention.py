"""The attention that the engine chose."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lib_hybridstitch.mmdit.model import attention


def attention_pytorch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Any = None,
    attn_precision: Any = None,
    skip_reshape: bool = False,
) -> Tensor:
    """Attention over (rows, L, heads·64)."""
    return attention(q, k, v, heads)


attention_function = attention_pytorch
