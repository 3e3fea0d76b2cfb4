"""A model and what is changed about it; clones share the model."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch

from backend import memory_management, utils


class LoraLoader:
    """Merges LoRAs into a model's weights, and takes them out again, when it is brought to the device."""

    def __init__(self, model: Any) -> None:
        self.model, self.backup, self.loaded_hash = model, dict[str, Any](), str([])

    def refresh(self, lora_patches: dict[Any, Any], offload_device: Any = None, force_refresh: bool = False) -> None:
        """Make the weights what these patches say."""
        hashes = str(list(lora_patches))
        if hashes == self.loaded_hash:
            return
        for key, weight in self.backup.items():
            utils.set_attr_raw(self.model, key, weight)
        self.backup = {}
        for patches in lora_patches.values():
            for key, entries in patches.items():
                weight = utils.get_attr(self.model, key)
                self.backup.setdefault(key, weight)
                for strength, (_, (difference,)), *_ in entries:
                    weight = (weight.float() + strength * difference).to(weight.dtype)
                utils.set_attr_raw(self.model, key, utils.tensor2parameter(weight))
        self.loaded_hash = hashes


class ModelPatcher:
    """Any model under the memory manager."""

    def __init__(
        self, model: Any, load_device: Any, offload_device: Any, size: int = 0, current_device: Any = None, **kw: Any
    ) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.size = size
        self.lora_patches: dict[Any, Any] = {}
        self.object_patches: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.current_device = offload_device if current_device is None else current_device
        self.model_size()
        if not hasattr(model, "lora_loader"):
            model.lora_loader = LoraLoader(model)
        self.lora_loader: LoraLoader = model.lora_loader

    def model_size(self) -> int:
        """Bytes of its weights."""
        self.size = self.size or memory_management.module_bytes(self.model)
        return self.size

    def clone(self) -> ModelPatcher:
        """The same model; its options copied deeply, with everything that hangs on them."""
        twin = type(self)(self.model, self.load_device, self.offload_device, self.size, self.current_device)
        twin.lora_patches = self.lora_patches.copy()
        twin.object_patches = self.object_patches.copy()
        twin.model_options = copy.deepcopy(self.model_options)
        return twin

    def is_clone(self, other: Any) -> bool:
        """Whether another patcher is of the same model."""
        return getattr(other, "model", None) is self.model

    def add_patches(
        self,
        *,
        filename: str,
        patches: dict[str, Any],
        strength_patch: float = 1.0,
        strength_model: float = 1.0,
        online_mode: bool = False,
    ) -> set[str]:
        """Add a LoRA; returns the names of weights that exist."""
        known = {name for name, _ in self.model.named_parameters()} & set(patches)
        entries = {key: [[strength_patch, patches[key], strength_model, None, None]] for key in sorted(known)}
        self.lora_patches[filename, strength_patch, strength_model, online_mode] = entries
        return known

    def has_online_lora(self) -> bool:
        """Whether LoRAs are applied at every call instead of merged."""
        return any(online for _, _, _, online in self.lora_patches)

    def refresh_loras(self) -> None:
        """Merge LoRAs."""
        self.lora_loader.refresh(lora_patches=self.lora_patches, offload_device=self.offload_device)

    def memory_required(self, input_shape: Any) -> float:
        """Estimate for a call."""
        return self.model.memory_required(input_shape=input_shape)

    def model_dtype(self) -> torch.dtype | None:
        """What the model computes in, where it says so."""
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Any) -> None:
        """Put a function around every call of the model; there is room for one."""
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_sampler_cfg_function(
        self, sampler_cfg_function: Any, disable_cfg1_optimization: bool = False
    ) -> None:
        """Replace guidance."""
        self.model_options["sampler_cfg_function"] = sampler_cfg_function
        self._disable(disable_cfg1_optimization)

    def set_model_sampler_post_cfg_function(self, function: Any, disable_cfg1_optimization: bool = False) -> None:
        """Change what guidance gave."""
        self.append_model_option("sampler_post_cfg_function", function)
        self._disable(disable_cfg1_optimization)

    def _disable(self, wanted: bool) -> None:
        if wanted:
            self.model_options["disable_cfg1_optimization"] = True

    def append_model_option(self, k: str, v: Any, ensure_uniqueness: bool = False) -> None:
        """Add to a list among the options."""
        self.model_options[k] = [*self.model_options.get(k, []), v]

    def set_model_patch(self, patch: Any, name: str) -> None:
        """Patches of UNet blocks, which SD3's transformer does not look at."""
        self.model_options["transformer_options"].setdefault("patches", {}).setdefault(name, []).append(patch)

    def add_object_patch(self, name: str, obj: Any) -> None:
        """Replace an attribute of the model while it is on the device; the stand-in only notes it."""
        self.object_patches[name] = obj


def loras_of(name: str, patcher: ModelPatcher) -> dict[str, Any]:
    """Stand-in: a LoRA's patches for a model."""
    lora = sys.modules["networks"]
    parameters = patcher.model.diffusion_model.named_parameters()
    return {key: ("diff", (tensor,)) for key, tensor in lora.differences(name, parameters, "diffusion_model.").items()}
