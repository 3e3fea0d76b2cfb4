"""The memory manager: which models are on the device. The stand-in's device has a size that tests choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from modules_forge import forge_version


@dataclass
class Device:
    """The stand-in's device, and what was asked of the manager.

    Args:
        total: bytes it has.
        loads: per `load_models_gpu`: (models, memory_required, hard_memory_preservation).
        evicted: models that were moved away.
    """

    total: int = 1 << 40
    loads: list[tuple[list[Any], float, float]] = field(default_factory=list)
    evicted: list[Any] = field(default_factory=list)


standin = Device()
cpu = torch.device("cpu")
current_loaded_models: list[LoadedModel] = []
signal_empty_cache = False


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's weights."""
    return sum(weight.nelement() * weight.element_size() for weight in module.parameters())


def module_size(module: torch.nn.Module, exclude_device: Any = None, include_device: Any = None) -> Any:
    """The same; on ersatzForge a pair."""
    size = module_bytes(module)
    return (size, size) if forge_version.is_ersatz() else size


class LoadedModel:
    """A patcher on the device."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, model.load_device

    def model_load(self) -> None:
        """Move it there and merge its LoRAs."""
        self.model.current_device = self.model.load_device
        self.model.refresh_loras()

    def model_unload(self, avoid_model_moving: bool = False) -> None:
        """Move it away."""
        self.model.current_device = self.model.offload_device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LoadedModel) and self.model is other.model

    __hash__ = None  # type: ignore[assignment]


def get_torch_device() -> torch.device:
    """Where models compute."""
    return cpu


def get_total_memory(dev: Any = None, torch_total_too: bool = False) -> Any:
    """Bytes of the device."""
    return (standin.total, standin.total) if torch_total_too else standin.total


def get_free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:
    """Bytes that no model takes."""
    free = standin.total - sum(module_bytes(loaded.model.model) for loaded in current_loaded_models)
    return (free, 0) if torch_free_too else free


def minimum_inference_memory() -> int:
    """What is kept free at least; Forge keeps 1 GB."""
    return 0


def unload_model_clones(model: Any) -> None:
    """Forget other clones of a patcher; the weights stay where they are."""
    for loaded in [one for one in current_loaded_models if model.is_clone(one.model)]:
        current_loaded_models.remove(loaded)


def free_memory(memory_required: float, device: Any, keep_loaded: Any = (), free_all: bool = False) -> None:
    """Move models away, the longest unused first, until there is room."""
    for loaded in reversed(list(current_loaded_models)):
        if not free_all and get_free_memory(device) > memory_required:
            break
        if loaded not in keep_loaded:
            current_loaded_models.remove(loaded)
            standin.evicted.append(loaded.model)
            loaded.model_unload()


def load_models_gpu(models: Any, memory_required: float = 0, hard_memory_preservation: float = 0) -> None:
    """Bring these models to the device together, and make room for inference."""
    standin.loads.append((list(models), memory_required, hard_memory_preservation))
    wanted = [LoadedModel(model) for model in models]
    kept = [loaded for loaded in wanted if loaded in current_loaded_models]
    missing = [loaded for loaded in wanted if loaded not in current_loaded_models]
    for loaded in kept:
        current_loaded_models.remove(loaded)
        current_loaded_models.insert(0, loaded)
    for loaded in missing:
        unload_model_clones(loaded.model)
    need = sum(module_bytes(loaded.model.model) for loaded in missing)
    free_memory(need + memory_required + hard_memory_preservation, cpu, kept)
    for loaded in missing:
        loaded.model_load()
        current_loaded_models.insert(0, loaded)


def load_model_gpu(model: Any) -> None:
    """Bring one model to the device."""
    load_models_gpu([model])


def unload_all_models() -> None:
    """Move everything away."""
    free_memory(1e30, cpu, free_all=True)


def soft_empty_cache(force: bool = False) -> None:
    """Give cached memory back."""


def state_dict_parameters(sd: dict[str, Any]) -> int:
    """Numbers in all tensors."""
    return sum(tensor.nelement() for tensor in sd.values())


def state_dict_dtype(state_dict: dict[str, Any]) -> torch.dtype:
    """The dtype of most tensors."""
    dtypes = [tensor.dtype for tensor in state_dict.values()]
    return max(set(dtypes), key=dtypes.count)


def dtype_size(dtype: torch.dtype) -> int:
    """Bytes per number."""
    return torch.empty((), dtype=dtype).element_size()


def unet_dtype(device: Any = None, model_params: int = 0, supported_dtypes: Any = ()) -> torch.dtype:
    """What transformers are stored in."""
    return torch.float32


def get_computation_dtype(inference_device: Any, parameters: int = 0, supported_dtypes: Any = ()) -> torch.dtype:
    """What transformers compute in."""
    return torch.float32


def unet_offload_device() -> torch.device:
    """Where transformers rest."""
    return cpu


def unet_initial_load_device(parameters: int, dtype: Any) -> torch.device:
    """Where transformers are built."""
    return cpu


unet_inital_load_device = unet_initial_load_device


def text_encoder_device() -> torch.device:
    """Where text encoders compute."""
    return cpu
