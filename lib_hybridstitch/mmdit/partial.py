"""Run an SD3-shaped transformer on some of its tokens.

Queries are the text and the chosen tokens; keys and values are the text and all image tokens, the chosen ones fresh and
the others from a cache. It works on any module of the reference structure (ours, A1111's, Forge's, ersatzForge's)
through the blocks' own submodules and methods, so that what a host does to them (LoRA, quantised weights, casting per
call) stays in force. Tensors handed to a block may be changed by it in place and are not used again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lib_hybridstitch.mmdit.kv_cache import FreshKeys, KVCache, RowKey
from lib_hybridstitch.mmdit.model import attention as default_attention
from lib_hybridstitch.mmdit.tokens import gather

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
TIME_SCALE = 1000.0


class Network(Protocol):
    """The parts of an SD3-shaped transformer that a pass touches."""

    x_embedder: Any
    t_embedder: Any
    y_embedder: Any
    context_embedder: Any
    joint_blocks: Any
    final_layer: Any

    def cropped_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        """Positions (1, N, hidden) for a latent of height and width `hw`."""
        ...


def run(
    network: Network,
    x: Tensor,
    sigma: Tensor,
    context: Tensor,
    pooled: Tensor,
    tokens: Tensor | None = None,
    cache: KVCache | None = None,
    *,
    rows: Sequence[RowKey] | None = None,
    skip_layers: Collection[int] = (),
    control: Sequence[Tensor] | None = None,
    attention: Attention = default_attention,
) -> Tensor:
    """Compute the velocity of some tokens.

    Args:
        network: any module of the reference structure.
        x: latent (rows, channels, H, W) in the dtype to compute in.
        sigma: flow noise level of each row, (rows,), 0..1.
        context: text tokens (rows, L, context width).
        pooled: pooled text (rows, pooled width).
        tokens: which tokens to compute, (rows, K), ascending per row; None for all (a full pass).
        cache: keys and values. A full pass fills it, a partial pass reads and updates it; without one, a partial
            pass lets the chosen tokens see only the text and one another.
        rows: what each row is to the cache, (image, stream) for instance; the row's number by default.
        skip_layers: joint blocks to leave out (skip-layer guidance).
        control: residuals (rows, N, hidden) added after the joint blocks, spread evenly over them (ControlNet).
        attention: function of q, k, v and the number of heads, over (rows, length, hidden).

    Returns:
        velocity of the chosen tokens as patches (rows, K, patch²·channels).

    Raises:
        StitchError: a partial pass over rows for which the cache holds no full pass.
    """
    hw = (x.shape[-2], x.shape[-1])
    row_keys = tuple(range(x.shape[0])) if rows is None else tuple(rows)
    if tokens is not None and tokens.shape[1] == 0:
        return x.new_empty(x.shape[0], 0, _patch_width(network, x))
    image = network.x_embedder(x) + network.cropped_pos_embed(hw).to(x.device, x.dtype)
    # The hosts' embedders give the channels of all tokens one after another; the blocks are faster on whole tokens.
    image = image.contiguous() if tokens is None else gather(image, tokens)
    condition = network.t_embedder(sigma * TIME_SCALE, dtype=x.dtype) + network.y_embedder(pooled.to(x.dtype))
    text: Tensor | None = network.context_embedder(context.to(x.dtype))
    for index, block in enumerate(network.joint_blocks):
        if index in skip_layers:
            continue
        attend = _Attend(attention, cache, row_keys, tokens, str(index))
        text, image = _joint_block(block, text, image, condition, attend)
        if control is not None:
            residual = control[index // (len(network.joint_blocks) // len(control))].to(image.dtype)
            image = image + (residual if tokens is None else gather(residual, tokens))
    patches: Tensor = network.final_layer(image, condition)
    return patches


class _Attend:
    """One block's attention over what the cache knows of the tokens that are not computed."""

    def __init__(
        self, attention: Attention, cache: KVCache | None, rows: tuple[RowKey, ...], tokens: Tensor | None, name: str
    ) -> None:
        self.attention, self.cache, self.rows, self.tokens, self.name = attention, cache, rows, tokens, name

    def joint(self, text: Sequence[Tensor], image: Sequence[Tensor], heads: int) -> Tensor:
        """Attend from text and chosen tokens to text and all tokens; returns (rows, L + K, hidden)."""
        queries = torch.cat((text[0], image[0]), dim=1)
        fresh = FreshKeys(image[1], _flat(image[2]), self.tokens, text[1], _flat(text[2]))
        return self._over(queries, fresh, heads, self.name)

    def image(self, qkv: Sequence[Tensor], heads: int) -> Tensor:
        """Attend from the chosen tokens to all tokens (`attn2`); returns (rows, K, hidden)."""
        return self._over(qkv[0], FreshKeys(qkv[1], _flat(qkv[2]), self.tokens), heads, self.name + ".attn2")

    def _over(self, queries: Tensor, fresh: FreshKeys, heads: int, name: str) -> Tensor:
        if self.cache is None:
            return self.attention(queries, fresh.whole_keys(), fresh.whole_values(), heads)
        keys, values = self.cache.attend(self.rows, name, fresh)
        return self.attention(queries, keys, values, heads)


def _joint_block(
    block: Any, text: Tensor | None, image: Tensor, condition: Tensor, attend: _Attend
) -> tuple[Tensor | None, Tensor]:
    assert text is not None, "only the last joint block ends the text"
    text_side, image_side = block.context_block, block.x_block
    length = text.shape[1]
    text_qkv, text_rest = text_side.pre_attention(text, condition)
    dual = getattr(image_side, "x_block_self_attn", False)
    if dual:
        image_qkv, second_qkv, image_rest = image_side.pre_attention_x(image, condition)
    else:
        image_qkv, image_rest = image_side.pre_attention(image, condition)
    joined = attend.joint(text_qkv, image_qkv, image_side.attn.num_heads)
    del text_qkv, image_qkv  # a pass is widest in the MLP, which needs none of them
    next_text = None if text_side.pre_only else text_side.post_attention(joined[:, :length], *text_rest)
    if dual:
        second = attend.image(second_qkv, image_side.attn2.num_heads)
        del second_qkv
        return next_text, image_side.post_attention_x(joined[:, length:], second, *image_rest)
    return next_text, image_side.post_attention(joined[:, length:], *image_rest)


def _flat(values: Tensor) -> Tensor:
    """The reference hands out v as (rows, L, heads, 64) while q and k are (rows, L, hidden)."""
    return values.flatten(2) if values.dim() == 4 else values


def patch_size(network: Network) -> int:
    """Edge of a token in latent pixels."""
    size = network.x_embedder.patch_size
    return int(size[0] if isinstance(size, tuple) else size)


def _patch_width(network: Network, x: Tensor) -> int:
    linear = network.final_layer.linear
    return int(getattr(linear, "out_features", patch_size(network) ** 2 * x.shape[1]))
