"""Load a second transformer through Forge's own loader, without touching the host's current model.

The host's loader keeps fp8, GGUF and bitsandbytes weights as they are stored, and its linear layers move and dequantise
them per call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.hosts.base import CheckpointFile
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig

STORAGE = "forge_unet_storage_dtype"
COMPONENT = ("transformer", "diffusers", "SD3Transformer2DModel")
SHIFT = 3.0
BITSANDBYTES = "bitsandbytes__"


def load(file: CheckpointFile) -> Any:
    """Return the host's patcher around a checkpoint's transformer.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used.
    """
    from backend import loader
    from backend.modules.k_prediction import PredictionDiscreteFlow
    from backend.patcher.unet import UnetPatcher
    from backend.state_dict import try_filter_state_dict

    state = loader.preprocess_state_dict(_transformer_tensors(file.path))
    guess = _guess(file.path, state)
    config = str(Path(loader.__file__).parent / "huggingface" / guess.huggingface_repo)
    weights = try_filter_state_dict(state, guess.unet_key_prefix)
    with _stored_dtype():
        model = loader.load_huggingface_component(guess, *COMPONENT, config, weights)
    predictor = PredictionDiscreteFlow(shift=SHIFT)
    return UnetPatcher.from_model(model=model, diffusers_scheduler=None, k_predictor=predictor, config=guess)


def _guess(path: Path, state: dict[str, Any]) -> Any:
    """The host's own guess at what the file is, completed as its loader completes it."""
    import huggingface_guess

    try:
        guess = huggingface_guess.guess(state)
    except Exception as error:
        raise CheckpointError(f"{path.name}: the WebUI's loader does not recognise it ({error})") from error
    if guess is None or not hasattr(guess, "huggingface_repo"):
        raise CheckpointError(f"{path.name}: the WebUI's loader does not recognise it, expected an SD3 or SD3.5 file")
    guess.clip_target = guess.clip_target(state)
    guess.model_type = guess.model_type(state)
    guess.ztsnr = "ztsnr" in state
    return guess


def _transformer_tensors(path: Path) -> dict[str, Any]:
    """Read the transformer's tensors and no others; GGUF files hold nothing else."""
    if path.suffix.lower() == ".gguf":
        from backend.utils import load_torch_file

        tensors: dict[str, Any] = load_torch_file(str(path))
        return tensors
    prefix = _prefix(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no mapping
            return _unscaled({name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        reason = f"safetensors cannot read it ({type(error).__name__}), download or copy the file again"
        raise CheckpointError(f"{path.name}: {reason}.") from error


def _prefix(path: Path) -> str:
    """What stands before the transformer's tensor names; the file is checked on the way."""
    names = checkpoint.tensor_names(path)
    if not any(BITSANDBYTES in name for name in names):
        return checkpoint.inspect(path).prefix
    return checkpoint.PREFIX if any(name.startswith(checkpoint.PREFIX) for name in names) else ""


def _unscaled(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Multiply in the scales of "scaled fp8" files, which the hosts' loaders drop or refuse."""
    if not any(name.endswith(checkpoint.SCALE) for name in tensors):
        return tensors
    done = {}
    for name, tensor in tensors.items():
        if name.endswith((checkpoint.SCALE, checkpoint.INPUT_SCALE, checkpoint.SCALED_MARK)):
            continue
        scale = tensors.get(name.removesuffix(".weight") + checkpoint.SCALE)
        done[name] = tensor if scale is None else (tensor.float() * scale.float()).to(torch.bfloat16)
    return done


@contextmanager
def _stored_dtype() -> Iterator[None]:
    """Let the loader keep the types of the file: "Diffusion in Low Bits" is meant for the main model."""
    from backend.args import dynamic_args

    before = dynamic_args.get(STORAGE)
    dynamic_args[STORAGE] = None
    try:
        yield
    finally:
        dynamic_args[STORAGE] = before


def bytes_to_load(file: CheckpointFile) -> int:
    """Memory that the weights will take, about: as stored."""
    if file.path.suffix.lower() == ".gguf":
        return file.path.stat().st_size
    try:
        return checkpoint.inspect(file.path).transformer_bytes
    except CheckpointError:
        return file.path.stat().st_size  # bitsandbytes weights, which only the host's loader knows


def config_of(file: CheckpointFile) -> MMDiTConfig | None:
    """The transformer's architecture by its tensors; None for GGUF and bitsandbytes, which only the host can read."""
    if file.path.suffix.lower() == ".gguf":
        return None
    try:
        return checkpoint.inspect(file.path).config
    except CheckpointError:
        return None


def unload(patcher: Any) -> None:
    """Take a model off its device, by the host's memory manager."""
    from backend import memory_management

    loaded = memory_management.current_loaded_models
    for index in reversed(range(len(loaded))):
        if patcher.is_clone(loaded[index].model):
            loaded.pop(index).model_unload()
    patcher.model.to(patcher.offload_device)
    memory_management.soft_empty_cache()
