"""The transformer under the memory manager, and what extensions hang on it for one pass."""

from __future__ import annotations

from typing import Any

from backend.modules.k_model import KModel
from backend.patcher.base import ModelPatcher


class UnetPatcher(ModelPatcher):
    """`forge_objects.unet`."""

    @classmethod
    def from_model(cls, model: Any, diffusers_scheduler: Any, config: Any, k_predictor: Any = None) -> UnetPatcher:
        """Wrap a transformer that the loader built."""
        wrapped = KModel(model=model, diffusers_scheduler=diffusers_scheduler, k_predictor=k_predictor, config=config)
        return cls(wrapped, model.load_device, model.offload_device, current_device=model.initial_device)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.controlnet_linked_list: Any = None
        self.extra_preserved_memory_during_sampling = 0
        self.extra_model_patchers_during_sampling: list[ModelPatcher] = []
        self.extra_concat_condition: Any = None

    def clone(self) -> UnetPatcher:
        """The same model with what hangs on it."""
        twin = super().clone()
        assert isinstance(twin, UnetPatcher)
        twin.controlnet_linked_list = self.controlnet_linked_list
        twin.extra_preserved_memory_during_sampling = self.extra_preserved_memory_during_sampling
        twin.extra_model_patchers_during_sampling = self.extra_model_patchers_during_sampling.copy()
        twin.extra_concat_condition = self.extra_concat_condition
        return twin

    def add_extra_preserved_memory_during_sampling(self, memory_in_bytes: int) -> None:
        """Keep this much free while sampling."""
        self.extra_preserved_memory_during_sampling += memory_in_bytes

    def add_extra_model_patcher_during_sampling(self, model_patcher: ModelPatcher) -> None:
        """Bring another model to the device while sampling."""
        self.extra_model_patchers_during_sampling.append(model_patcher)

    def add_extra_torch_module_during_sampling(self, m: Any, cast_to_unet_dtype: bool = True) -> ModelPatcher:
        """Bring any module to the device while sampling."""
        patcher = ModelPatcher(m, self.load_device, self.offload_device)
        self.add_extra_model_patcher_during_sampling(patcher)
        return patcher

    def add_patched_controlnet(self, cnet: Any) -> None:
        """Add a ControlNet."""
        cnet.previous_controlnet = self.controlnet_linked_list
        self.controlnet_linked_list = cnet

    def list_controlnets(self) -> list[Any]:
        """All ControlNets, the last first."""
        found, pointer = [], self.controlnet_linked_list
        while pointer is not None:
            found.append(pointer)
            pointer = pointer.previous_controlnet
        return found

    def set_transformer_option(self, k: str, v: Any) -> None:
        """Something for every call of the transformer (`skip_layers`, for one)."""
        self.model_options["transformer_options"][k] = v
