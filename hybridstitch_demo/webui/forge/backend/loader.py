"""From a file to parts of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_guess
import torch

from backend import memory_management
from backend.args import dynamic_args
from backend.diffusion_engine.sd35 import StableDiffusion3
from backend.nn.mmditx import MMDiTX
from backend.state_dict import load_state_dict, try_filter_state_dict
from backend.utils import load_torch_file

dir_path = str(Path(__file__).parent)
QUANTISED = (torch.float8_e4m3fn, torch.float8_e5m2)


def preprocess_state_dict(sd: dict[str, Any]) -> dict[str, Any]:
    """Give files without a prefix the usual one."""
    if any(name.startswith("model.diffusion_model") for name in sd):
        return sd
    return {f"model.diffusion_model.{name}": tensor for name, tensor in sd.items()}


def load_huggingface_component(
    guess: Any, component_name: str, lib_name: str, cls_name: str, repo_path: str, state_dict: Any
) -> Any:
    """Build a part; the stand-in builds transformers. A storage dtype of the page's choice overrules the file's."""
    if cls_name != "SD3Transformer2DModel":
        return None
    assert isinstance(state_dict, dict) and len(state_dict) > 16, "You do not have model state dict!"
    stored = memory_management.state_dict_dtype(state_dict)
    chosen = dynamic_args.get("forge_unet_storage_dtype")
    dtype = chosen or (stored if stored in QUANTISED else memory_management.unet_dtype())
    model = MMDiTX(**guess.unet_config).to(dtype).eval().requires_grad_(False)
    load_state_dict(model, state_dict)
    model.config = guess.unet_config.copy()
    model.storage_dtype, model.dtype = dtype, dtype
    model.load_device = memory_management.get_torch_device()
    model.computation_dtype = memory_management.get_computation_dtype(model.load_device)
    model.initial_device = model.offload_device = memory_management.unet_offload_device()
    return model


def split_state_dict(sd: Any, additional_state_dicts: Any = None) -> tuple[dict[str, Any], Any]:
    """Recognise a file and sort its tensors by part."""
    tensors = preprocess_state_dict(load_torch_file(sd))
    guess = huggingface_guess.guess(tensors)
    guess.clip_target, guess.model_type = guess.clip_target(tensors), guess.model_type(tensors)
    guess.ztsnr = "ztsnr" in tensors
    return {guess.unet_target: try_filter_state_dict(tensors, guess.unet_key_prefix)}, guess


@torch.inference_mode()
def forge_loader(sd: Any, additional_state_dicts: Any = None) -> Any:
    """A whole model from a file."""
    parts, guess = split_state_dict(sd, additional_state_dicts)
    path = str(Path(dir_path) / "huggingface" / guess.huggingface_repo)
    transformer = load_huggingface_component(
        guess, "transformer", "diffusers", "SD3Transformer2DModel", path, parts["transformer"]
    )
    return StableDiffusion3(estimated_config=guess, huggingface_components={"transformer": transformer})
