"""diffusers' own network with our weights: `SD3Transformer2DModel` of any of the architectures we load.

The conversion of names follows what diffusers' own loader of single files does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from lib_hybridstitch.mmdit.config import HEAD_WIDTH, MMDiTConfig

Renamed = Iterator[tuple[str, Tensor]]

OUTER_NAMES = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
}
BLOCK_NAMES = {  # what does not depend on which block it is; diffusers joins both sides' attention in one module
    "x_block.adaLN_modulation.1": "norm1.linear",
    "x_block.attn.proj": "attn.to_out.0",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.attn.proj": "attn.to_add_out",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
QKV_NAMES = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def scale_first(tensor: Tensor) -> Tensor:
    """Turn Stability's (shift, scale) into (scale, shift).

    That is the order of diffusers' continuous norm, used for the last block's context and before the output.
    """
    shift, scale = tensor.chunk(2)
    return torch.cat([scale, shift])


def renamed(name: str, tensor: Tensor, depth: int) -> Renamed:
    """Yield diffusers' name or names of one tensor of Stability's naming, with their values."""
    module, _, leaf = name.rpartition(".")
    if name == "pos_embed":
        yield "pos_embed.pos_embed", tensor
    elif module == "final_layer.adaLN_modulation.1":
        yield f"norm_out.linear.{leaf}", scale_first(tensor)
    elif module in OUTER_NAMES:
        yield f"{OUTER_NAMES[module]}.{leaf}", tensor
    else:
        _, index, part = module.split(".", 2)
        for block_name, value in renamed_in_block(part, tensor, int(index) == depth - 1):
            yield f"transformer_blocks.{index}.{block_name}.{leaf}", value


def renamed_in_block(part: str, tensor: Tensor, last: bool) -> Renamed:
    """Yield diffusers' module or modules within a block."""
    if part in QKV_NAMES:
        yield from zip(QKV_NAMES[part], tensor.chunk(3))
    elif part == "context_block.adaLN_modulation.1":
        yield "norm1_context.linear", scale_first(tensor) if last else tensor
    else:
        yield BLOCK_NAMES[part], tensor


def diffusers_network(config: MMDiTConfig, tensors: dict[str, Tensor]) -> SD3Transformer2DModel:
    """Build diffusers' network of the same architecture; every one of our weights must find its place in it.

    The weights are shared, not copied: the race keeps a network per cache.
    """
    network = SD3Transformer2DModel(
        sample_size=2 * config.pos_embed_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=config.depth,
        joint_attention_dim=config.context_dim,
        caption_projection_dim=config.hidden,
        pooled_projection_dim=config.pooled_dim,
        pos_embed_max_size=config.pos_embed_size,
        dual_attention_layers=config.dual_attention,
        qk_norm="rms_norm" if config.qk_norm else None,
    )
    state = dict(pair for name, tensor in tensors.items() for pair in renamed(name, tensor, config.depth))
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)
