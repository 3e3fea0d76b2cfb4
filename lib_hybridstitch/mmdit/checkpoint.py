"""Open an SD3 or SD3.5 checkpoint, recognise it, and load its transformer's tensors and no others.

Only safetensors files are opened; `header` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.header import LOADABLE, Entry, File, opened, refusal
from lib_hybridstitch.mmdit.model import MMDiT

PREFIX = "model.diffusion_model."
CAST_ROWS = 1024  # rows of a scaled weight that are in fp32 at a time

SCALE, INPUT_SCALE, SCALED_MARK = ".scale_weight", ".scale_input", "scaled_fp8"

ROOTS = ("pos_embed", "x_embedder", "t_embedder", "y_embedder", "context_embedder", "joint_blocks", "final_layer")
STABILITY_NEEDED = "expected the single-file checkpoint in Stability's naming (joint_blocks.0...)"
FAMILIES = (  # how a tensor's name begins, what that looks like, what was expected; the first match counts
    ("double_blocks.", "Flux", "expected an SD3 or SD3.5 checkpoint"),
    ("single_transformer_blocks.", "Flux in diffusers' format", "expected an SD3 or SD3.5 checkpoint"),
    ("transformer_blocks.", "SD3 in diffusers' format", STABILITY_NEEDED),
    ("down_blocks.", "SDXL or SD1.5 in diffusers' format", "expected an SD3 or SD3.5 checkpoint"),
    ("label_emb.", "SDXL", "expected an SD3 or SD3.5 checkpoint"),
    ("input_blocks.", "SD1.5 or SD2", "expected an SD3 or SD3.5 checkpoint"),
)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint's header says about its transformer.

    Args:
        path: the file.
        config: architecture of the transformer.
        prefix: what stands before the transformer's tensor names in this file, possibly "".
        dtypes: stored types of the transformer's tensors in safetensors' spelling, sorted.
        transformer_bytes: size of the transformer's tensors as stored.
    """

    path: Path
    config: MMDiTConfig
    prefix: str
    dtypes: tuple[str, ...]
    transformer_bytes: int


class _Contents(NamedTuple):
    """A recognised file: names of the weights and scales, as stored, in the order in which they lie in the file."""

    info: CheckpointInfo
    weights: tuple[str, ...]
    scales: tuple[str, ...]


def inspect(path: str | PathLike[str]) -> CheckpointInfo:
    """Recognise a checkpoint from its header alone; no tensor is read.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used.
    """
    with opened(Path(path)) as file:
        return _examine(Path(path), file).info


def tensor_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Names of all tensors of a safetensors file, from its checked header; CheckpointError when it cannot be used."""
    with opened(Path(path)) as file:
        return tuple(file.entries)


def load(path: str | PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> MMDiT:
    """Load the transformer of a checkpoint, frozen and in evaluation mode.

    Tensors stream from the file one at a time into memory of their own: at most the weights and one tensor are in RAM,
    and the file is closed afterwards.

    Args:
        path: a safetensors file.
        device: where the weights go.
        dtype: type of every tensor; None keeps the types of the file. A weight's scale (scaled fp8) is multiplied in
            when there is a `dtype`, and otherwise kept as the layer's `scale_weight`, one fp32 number.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used.
    """
    with opened(Path(path)) as file:
        contents = _examine(Path(path), file)
        with torch.device("meta"):
            network = MMDiT(contents.info.config)
        scales = {
            name.removesuffix(SCALE): scale.to(device, torch.float32, copy=True).reshape(())
            for name, scale in file.tensors(contents.scales)
        }
        for stored_name, stored in file.tensors(contents.weights):
            name = stored_name.removeprefix(contents.info.prefix)
            layer = network.get_submodule(name.rpartition(".")[0])
            scale = scales.get(stored_name.removesuffix(".weight"))
            _assign(layer, name.rpartition(".")[2], stored, scale, device, dtype)
        file.check_unchanged()
    return network.eval()


def check_pair(large: CheckpointInfo, small: CheckpointInfo) -> None:
    """Make sure that two checkpoints can be stitched.

    Raises:
        PairError: naming both files and the first property in which they differ.
    """
    large.config.check_pair(small.config, large.path.name, small.path.name)


def _assign(
    layer: nn.Module,
    leaf: str,
    stored: Tensor,
    scale: Tensor | None,
    device: str | torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Give `layer` the parameter or buffer `leaf`, and its scale when that stays apart."""
    if scale is None or dtype is None:
        tensor = stored.to(device=device, dtype=dtype or stored.dtype, copy=True)  # `stored` is about to be overwritten
    else:
        tensor = torch.empty(stored.shape, device=device, dtype=dtype)
        for source, target in zip(stored.split(CAST_ROWS), tensor.split(CAST_ROWS)):
            target.copy_(source.to(device).float() * scale)
    is_parameter = isinstance(getattr(layer, leaf), nn.Parameter)
    setattr(layer, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
    if scale is not None and dtype is None:
        layer.scale_weight = scale


# Recognition


def _examine(path: Path, file: File) -> _Contents:
    """Find the transformer of a file, and make sure that it is complete."""
    entries = file.entries
    prefix = _find_prefix(path, entries)
    own = {
        name[len(prefix) :]: entry
        for name, entry in sorted(entries.items(), key=lambda item: item[1].begin)
        if name.startswith(prefix) and (prefix or name.split(".")[0] in ROOTS)
    }
    own = {name: entry for name, entry in own.items() if name != SCALED_MARK and not name.endswith(INPUT_SCALE)}
    for name, entry in own.items():
        if entry.dtype not in LOADABLE:
            raise refusal(path, f"{prefix}{name} has type {entry.dtype}, expected one of {', '.join(LOADABLE)}")
        if prod(entry.shape) == 0:
            raise refusal(path, f"{prefix}{name} has shape {list(entry.shape)}, expected at least one number")
    scales = {name: entry for name, entry in own.items() if name.endswith(SCALE)}
    weights = {name: entry for name, entry in own.items() if name not in scales}
    config = MMDiTConfig.from_tensors({name: entry.shape for name, entry in weights.items()}, path.name)
    for name, entry in scales.items():
        weight = weights.get(name.removesuffix(SCALE) + ".weight")
        if weight is None or len(weight.shape) != 2 or entry.shape not in ((), (1,)):
            reason = f"{prefix}{name} has shape {list(entry.shape)}, expected one number for a linear layer's weight"
            raise refusal(path, reason)
    info = CheckpointInfo(
        path=path,
        config=config,
        prefix=prefix,
        dtypes=tuple(sorted({entry.dtype for entry in weights.values()})),
        transformer_bytes=sum(entry.end - entry.begin for entry in own.values()),
    )
    return _Contents(info, tuple(prefix + name for name in weights), tuple(prefix + name for name in scales))


def _find_prefix(path: Path, names: Mapping[str, Entry]) -> str:
    """Return what stands before the transformer's names; refuse files of other families."""
    for prefix in (PREFIX, ""):
        if any(name.startswith(f"{prefix}joint_blocks.") for name in names):
            return prefix
    for beginning, family, expected in FAMILIES:
        for name in names:
            if name.removeprefix(PREFIX).startswith(beginning):
                raise refusal(path, f"{name} looks like {family}, {expected}")
    raise refusal(path, "joint_blocks.0.x_block.attn.qkv.weight is missing, expected an SD3 or SD3.5 transformer")
