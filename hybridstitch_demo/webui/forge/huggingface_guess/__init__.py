"""Recognise a model by its tensors; the stand-in knows SD3's family."""

from __future__ import annotations

from typing import Any

from huggingface_guess import model_list

PREFIX = "model.diffusion_model."


def unet_config(sd: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What the transformer's class is made with."""
    shape = {name[len(prefix) :]: tuple(tensor.shape) for name, tensor in sd.items() if name.startswith(prefix)}
    width, channels, patch, _ = shape["x_embedder.proj.weight"]
    features = shape["context_embedder.weight"]
    config: dict[str, Any] = {
        "in_channels": channels,
        "patch_size": patch,
        "out_channels": shape["final_layer.linear.weight"][0] // patch**2,
        "depth": width // 64,
        "input_size": None,
        "adm_in_channels": shape["y_embedder.mlp.0.weight"][1],
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": features[1], "out_features": features[0]},
        },
        "num_patches": shape["pos_embed"][1],
        "pos_embed_max_size": round(shape["pos_embed"][1] ** 0.5),
        "pos_embed_scaling_factor": None,
        "x_block_self_attn_layers": [
            index for index in range(width // 64) if f"joint_blocks.{index}.x_block.attn2.qkv.weight" in shape
        ],
    }
    if "joint_blocks.0.context_block.attn.ln_q.weight" in shape:
        config["qk_norm"] = "rms"
    return config


def guess(state_dict: dict[str, Any]) -> Any:
    """The description of a model, for the loader."""
    if f"{PREFIX}joint_blocks.0.context_block.attn.qkv.weight" not in state_dict:
        raise ValueError("Failed to recognize model type!")
    result = model_list.SD3(unet_config(state_dict, PREFIX))
    result.unet_key_prefix = [PREFIX]
    return result
