"""A transformer run by this project's own network: for hosts that have none of its kind, or none to spare."""

from __future__ import annotations

import torch

from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.hosts.base import CheckpointFile
from lib_hybridstitch.mmdit import checkpoint


class OwnModel:
    """A checkpoint's transformer, loaded once; serves as the small model or as the large one.

    Args:
        file: a safetensors file.
        device: where it computes.
        dtype: what it computes in; 8-bit weights stay as they are stored and are cast as they are used.
        parks: whether it waits in main memory between passes.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used.
    """

    def __init__(self, file: CheckpointFile, device: torch.device, dtype: torch.dtype, parks: bool = False) -> None:
        stored = checkpoint.inspect(file.path).dtypes
        eight_bit = any(name.startswith("F8") for name in stored)
        home = torch.device("cpu") if parks else device
        with torch.inference_mode(False):
            self.network = checkpoint.load(file.path, home, None if eight_bit else dtype)
        self.config = self.network.config
        self._device, self._dtype, self._home = device, dtype, home

    def model(self, guided_by_layers: bool = False) -> Model:
        """Bring it to its device and return how the engine calls it."""
        self.network.to(self._device)
        return Model(self.network, None, self._dtype, self._device, guided_by_layers=guided_by_layers)

    def rest(self) -> None:
        """Go back to where it waits between passes."""
        self.network.to(self._home)

    def release(self) -> None:
        """Give its memory back."""
        self.network.to("meta")
        free_cached_memory(self._device)


def free_cached_memory(device: torch.device) -> None:
    """Hand memory that torch keeps for later back to the device, where it keeps any."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()


def bytes_to_load(file: CheckpointFile, dtype: torch.dtype) -> int:
    """Memory that `OwnModel` will take for a file, from its header alone."""
    info = checkpoint.inspect(file.path)
    if any(name.startswith("F8") for name in info.dtypes):
        return info.transformer_bytes
    numbers = sum(_product(shape) for shape in info.config.expected_shapes().values())
    return numbers * torch.empty((), dtype=dtype).element_size()


def _product(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
