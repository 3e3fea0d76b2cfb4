"""Forge's SD3 and SD3.5 transformer, and ersatzForge's, which changes what it is given."""

from __future__ import annotations

from functools import partial
from math import isqrt
from types import SimpleNamespace
from typing import Any

import torch
from modules_forge import forge_version
from torch import Tensor, nn

from hybridstitch_demo import in_place
from lib_hybridstitch.mmdit import model
from lib_hybridstitch.mmdit.config import MMDiTConfig


def modulate_in_place(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x · (1 + scale) + shift; `scale` is spoilt."""
    return torch.addcmul(shift.unsqueeze(1), x, scale.add_(1).unsqueeze(1))


def pre_attention(side: Any, x: Tensor, c: Tensor) -> tuple[Any, Any]:
    """The first half of a block, spoiling its modulation."""
    parts = side.adaLN_modulation(c).chunk(2 if side.pre_only else 6, dim=1)
    qkv = side.attn.pre_attention(modulate_in_place(side.norm1(x), parts[0], parts[1]))
    return qkv, None if side.pre_only else (x, *parts[2:])


def pre_attention_x(side: Any, x: Tensor, c: Tensor) -> tuple[Any, Any, Any]:
    """The same with a second attention."""
    parts = side.adaLN_modulation(c).chunk(9, dim=1)
    normed = side.norm1(x)
    qkv = side.attn.pre_attention(modulate_in_place(normed, parts[0], parts[1]))
    qkv2 = side.attn2.pre_attention(modulate_in_place(normed, parts[6], parts[7]))
    return qkv, qkv2, (x, *parts[2:6], parts[8])


def final(layer: Any, x: Tensor, c: Tensor) -> Tensor:
    """The last layer, spoiling its modulation."""
    shift, scale = layer.adaLN_modulation(c).chunk(2, dim=1)
    return layer.linear(modulate_in_place(layer.norm_final(x), shift, scale))


def spoil(network: Any) -> None:
    """Make a network work in place, as ersatzForge's does."""
    network.final_layer.forward = partial(final, network.final_layer)
    functions = (pre_attention, pre_attention_x, in_place.post_attention, in_place.post_attention_x)
    for block in network.joint_blocks:
        for side in (block.context_block, block.x_block):
            for function in functions:
                setattr(side, function.__name__, partial(function, side))
            for attention in filter(None, (side.attn, getattr(side, "attn2", None))):
                for norm in ("ln_q", "ln_k"):
                    if isinstance(getattr(attention, norm), model.RMSNorm):
                        setattr(attention, norm, in_place.InPlaceRMSNorm(64))


class MMDiTX(model.MMDiT):
    """Forge's constructor, call and attributes; the computation is the project's own.

    Stand-in: `out_channels` may be given, and second attentions are where the file has them. Forge builds them in
    blocks 0 to 12 of networks with 384² positions.
    """

    storage_dtype: torch.dtype
    computation_dtype: torch.dtype

    def __init__(
        self,
        *,
        depth: int,
        patch_size: int,
        in_channels: int,
        num_patches: int,
        adm_in_channels: int,
        context_embedder_config: dict[str, Any],
        qk_norm: str | None = None,
        x_block_self_attn_layers: Any = (),
        out_channels: int | None = None,
        **rest: Any,
    ) -> None:
        config = MMDiTConfig(
            depth=depth,
            patch_size=patch_size,
            in_channels=in_channels,
            out_channels=out_channels or in_channels,
            context_dim=context_embedder_config["params"]["in_features"],
            pooled_dim=adm_in_channels,
            pos_embed_size=isqrt(num_patches),
            qk_norm=qk_norm == "rms",
            dual_attention=tuple(x_block_self_attn_layers),
        )
        super().__init__(config)
        self.architecture, self.dtype = config, torch.float32
        self.patch_size, self.pos_embed_max_size, self.num_heads = patch_size, config.pos_embed_size, depth
        if forge_version.is_ersatz():
            spoil(self)

    def cropped_pos_embed(self, hw: tuple[int, int]) -> Tensor:
        """Positions (1, N, hidden); `config` is not the project's any more once the loader was here."""
        known: Any = SimpleNamespace(config=self.architecture, pos_embed=self.pos_embed)
        return model.MMDiT.cropped_pos_embed(known, hw)

    def unpatchify(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Patches as a latent."""
        known: Any = SimpleNamespace(config=self.architecture, out_channels=self.out_channels)
        return model.MMDiT.unpatchify(known, x, hw)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Velocity of a latent; t is 1000·σ.

        Args:
            control: residuals (rows, N, hidden) that are added after joint blocks, spread evenly over them.
            transformer_options: of them, `skip_layers` lists joint blocks to leave out.
        """
        assert context is not None
        skip = (transformer_options or {}).get("skip_layers", [])
        hw = (x.shape[-2], x.shape[-1])
        tokens = self.x_embedder(x) + self.cropped_pos_embed(hw).to(x.device, x.dtype)
        c = self.t_embedder(t, dtype=x.dtype)
        c = c if y is None else c + self.y_embedder(y)
        text: Any = self.context_embedder(context)
        blocks: nn.ModuleList = self.joint_blocks
        for index, block in enumerate(blocks):
            if index in skip:
                continue
            text, tokens = block(text, tokens, c=c)
            if control is not None:
                tokens = tokens + control[index // (len(blocks) // len(control))]
        return self.unpatchify(self.final_layer(tokens, c), hw)
