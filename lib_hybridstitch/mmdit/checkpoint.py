"""Open an SD3 or SD3.5 checkpoint, recognise it, and load its transformer's tensors and no others.

Only safetensors files are opened, and their header is checked here, within bounds, before the safetensors package or
torch believes a word of it. Layout: 8 bytes with the header's length, a JSON header, the tensors' bytes. Source: the
format section of the safetensors package's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.model import MMDiT

PREFIX = "model.diffusion_model."
MAX_HEADER_BYTES = 100_000_000  # the safetensors package's own limit
MAX_TENSORS = 20_000  # the transformer of SD3.5-Large has 923
MAX_NAME = 256
MAX_ENTRY = 1024  # characters of one tensor's entry in the header
CAST_ROWS = 1024  # rows of a scaled weight that are in fp32 at a time

TYPES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32",
    64: "U64 I64 F64 C64",
}
BITS = {name: bits for bits, names in TYPES_BY_BITS.items() for name in names.split()}
LOADABLE = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SCALE, INPUT_SCALE, SCALED_MARK = ".scale_weight", ".scale_input", "scaled_fp8"

DECODER = json.JSONDecoder()
WHITE_SPACE = re.compile(r"[ \t\n\r]*")

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
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


class _Entry(NamedTuple):
    """One tensor of a header: its type, shape and place, in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Contents(NamedTuple):
    """A recognised file: weights and scales without the prefix, in the order in which they lie in the file."""

    info: CheckpointInfo
    weights: tuple[str, ...]
    scales: tuple[str, ...]


def inspect(path: str | PathLike[str]) -> CheckpointInfo:
    """Recognise a checkpoint from its header alone; no tensor is read.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used.
    """
    return _examine(Path(path)).info


def tensor_names(path: str | PathLike[str]) -> tuple[str, ...]:
    """Names of all tensors of a safetensors file, from its checked header; CheckpointError when it cannot be used."""
    return tuple(_read_header(Path(path)))


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
    contents = _examine(Path(path))
    prefix = contents.info.prefix
    with torch.device("meta"):
        network = MMDiT(contents.info.config)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            scales = {
                name.removesuffix(SCALE): file.get_tensor(prefix + name).to(device, torch.float32).reshape(())
                for name in contents.scales
            }
            for name in contents.weights:
                layer = network.get_submodule(name.rpartition(".")[0])
                scale = scales.get(name.removesuffix(".weight"))
                _assign(layer, name.rpartition(".")[2], file.get_tensor(prefix + name), scale, device, dtype)
    except (SafetensorError, OSError) as error:
        reason = f"safetensors cannot read it ({type(error).__name__}), download or copy the file again"
        raise _refusal(Path(path), reason) from error
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
        tensor = stored.to(device=device, dtype=dtype or stored.dtype, copy=True)  # a copy, as `stored` maps the file
    else:
        tensor = torch.empty(stored.shape, device=device, dtype=dtype)
        for source, target in zip(stored.split(CAST_ROWS), tensor.split(CAST_ROWS)):
            target.copy_(source.to(device).float() * scale)
    is_parameter = isinstance(getattr(layer, leaf), nn.Parameter)
    setattr(layer, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
    if scale is not None and dtype is None:
        layer.scale_weight = scale


def _refusal(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path.name}: {reason}.")


# Recognition


def _examine(path: Path) -> _Contents:
    """Check the file, find its transformer, and make sure that it is complete."""
    entries = _read_header(path)
    prefix = _find_prefix(path, entries)
    own = {
        name[len(prefix) :]: entry
        for name, entry in sorted(entries.items(), key=lambda item: item[1].begin)
        if name.startswith(prefix) and (prefix or name.split(".")[0] in ROOTS)
    }
    own = {name: entry for name, entry in own.items() if name != SCALED_MARK and not name.endswith(INPUT_SCALE)}
    for name, entry in own.items():
        if entry.dtype not in LOADABLE:
            raise _refusal(path, f"{prefix}{name} has type {entry.dtype}, expected one of {', '.join(LOADABLE)}")
        if prod(entry.shape) == 0:
            raise _refusal(path, f"{prefix}{name} has shape {list(entry.shape)}, expected at least one number")
    scales = {name: entry for name, entry in own.items() if name.endswith(SCALE)}
    weights = {name: entry for name, entry in own.items() if name not in scales}
    config = MMDiTConfig.from_tensors({name: entry.shape for name, entry in weights.items()}, path.name)
    for name, entry in scales.items():
        weight = weights.get(name.removesuffix(SCALE) + ".weight")
        if weight is None or len(weight.shape) != 2 or entry.shape not in ((), (1,)):
            reason = f"{prefix}{name} has shape {list(entry.shape)}, expected one number for a linear layer's weight"
            raise _refusal(path, reason)
    info = CheckpointInfo(
        path=path,
        config=config,
        prefix=prefix,
        dtypes=tuple(sorted({entry.dtype for entry in weights.values()})),
        transformer_bytes=sum(entry.end - entry.begin for entry in own.values()),
    )
    return _Contents(info, tuple(weights), tuple(scales))


def _find_prefix(path: Path, names: Mapping[str, _Entry]) -> str:
    """Return what stands before the transformer's names; refuse files of other families."""
    for prefix in (PREFIX, ""):
        if any(name.startswith(f"{prefix}joint_blocks.") for name in names):
            return prefix
    for beginning, family, expected in FAMILIES:
        for name in names:
            if name.removeprefix(PREFIX).startswith(beginning):
                raise _refusal(path, f"{name} looks like {family}, {expected}")
    raise _refusal(path, "joint_blocks.0.x_block.attn.qkv.weight is missing, expected an SD3 or SD3.5 transformer")


# The file and its header


def _read_header(path: Path) -> dict[str, _Entry]:
    """Read and check a safetensors header: tensor name → entry."""
    if path.is_dir():
        raise _refusal(path, "is a folder, expected a safetensors file")
    if not path.is_file():
        raise _refusal(path, "is not there, expected a safetensors file")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = _header_length(path, file.read(9), size)
            file.seek(8)
            text = file.read(length).decode()
    except OSError as error:
        raise _refusal(path, f"cannot be read ({error.strerror}), expected a readable safetensors file") from error
    except UnicodeDecodeError as error:
        raise _refusal(path, "its header is not UTF-8 text, expected a safetensors file") from error
    entries = _parse_header(path, text)
    _check_places(path, entries, size - 8 - length)
    return entries


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Tell what a file is by its first nine bytes, and return the length of a safetensors header."""
    length = int.from_bytes(start[:8], "little")
    # Lengths such as 640 and 19,280 begin with the bytes of a pickle and of a zip: the brace decides.
    braced = start[8:] == b"{" and length <= MAX_HEADER_BYTES
    if start[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        raise _refusal(path, "is a GGUF file, which only Forge's own loader can open, expected a safetensors file")
    if path.suffix.lower() in PICKLE_SUFFIXES or (not braced and start[:1] == b"\x80") or start[:4] == b"PK\x03\x04":
        raise _refusal(path, "is a pickle, which may run code when opened, expected a safetensors file")
    if not braced and start[:2] == b"PK":
        raise _refusal(path, "is a zip archive, perhaps of a pickle, expected a safetensors file")
    if size < 10:
        raise _refusal(path, f"has {size} bytes, expected a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise _refusal(path, f"announces a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    if length + 8 > size:
        raise _refusal(path, f"announces a header of {length} bytes but has {size}, download or copy the file again")
    if not braced:
        raise _refusal(path, "its header does not begin with a brace, expected a safetensors file")
    return length


def _parse_header(path: Path, text: str) -> dict[str, _Entry]:
    """Parse the header piece by piece, so that a hostile one costs no more memory than its text."""
    cursor = _Cursor(text)
    entries: dict[str, _Entry] = {}
    metadata_seen = False
    try:
        for name in cursor.walk():
            if name in entries or (name == "__metadata__" and metadata_seen):
                raise _refusal(path, f"{name} stands twice in the header, expected every tensor once")
            if name == "__metadata__":
                metadata_seen = True
                for number, _ in enumerate(cursor.walk()):
                    cursor.string()
                    if number == MAX_TENSORS:
                        raise _refusal(path, f"__metadata__ is too long, expected at most {MAX_TENSORS} texts")
                continue
            if len(name) > MAX_NAME or not name.isprintable():
                reason = f"{name[:40]!r}... is no tensor name, expected at most {MAX_NAME} printable characters"
                raise _refusal(path, reason)
            if len(entries) == MAX_TENSORS:
                raise _refusal(path, f"{name} is one tensor too many, expected at most {MAX_TENSORS} in a file")
            entries[name] = _entry(path, name, cursor)
        cursor.expect("")
    except ValueError as error:
        reason = f"its header is broken at character {cursor.at}, expected the JSON of a safetensors file"
        raise _refusal(path, reason) from error
    return entries


def _entry(path: Path, name: str, cursor: _Cursor) -> _Entry:
    """Read and check one tensor's entry, whatever the size of the file."""
    try:
        fields = cursor.small_object()
    except (ValueError, RecursionError) as error:
        reason = f"{name} has no readable entry in the header, expected dtype, shape and data_offsets"
        raise _refusal(path, reason) from error
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _refusal(path, f"{name} has type {dtype!r}, expected a type of the safetensors format")
    if not _are_naturals(shape):
        raise _refusal(path, f"{name} has shape {shape!r}, expected a list of non-negative whole numbers")
    if not _are_naturals(offsets) or len(offsets) != 2:
        raise _refusal(path, f"{name} has data_offsets {offsets!r}, expected two non-negative whole numbers")
    begin, end = offsets
    needed = Decimal(prod(shape) * BITS[dtype]) / 8  # of any size, and not always a whole number: F4 takes half a byte
    if end - begin != needed:
        raise _refusal(path, f"{name} takes {end - begin} bytes, expected {needed} for {dtype} {shape}")
    return _Entry(dtype, tuple(shape), begin, end)


def _are_naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_places(path: Path, entries: Mapping[str, _Entry], data_bytes: int) -> None:
    """Make sure that the tensors fill the file's data, in whatever order, without overlap or gap."""
    reached = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.end > data_bytes:
            raise _refusal(
                path,
                f"{name} ends at byte {entry.end} of the data but the file has {data_bytes}, expected a whole file: "
                "download or copy it again",
            )
        if entry.begin != reached:
            fault = "overlaps another tensor" if entry.begin < reached else "stands behind a gap"
            raise _refusal(path, f"{name} {fault} at byte {entry.begin} of the data, expected it at byte {reached}")
        reached = entry.end
    if reached != data_bytes:
        raise _refusal(path, f"has {data_bytes - reached} bytes after its last tensor, expected none")


class _Cursor:
    """A place in a JSON text; methods raise ValueError where the text does not hold what they look for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skips(self, mark: str) -> bool:
        """Go past white space and, if it comes next, `mark`; return whether it did."""
        space = WHITE_SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) if found else 0
        return found

    def expect(self, mark: str) -> None:
        """Go past `mark`; "" stands for the end of the text."""
        if not self.skips(mark) or (mark == "" and self.at != len(self.text)):
            raise ValueError(f"expected {mark!r}")

    def string(self) -> str:
        """Read a string."""
        self.expect('"')
        value, self.at = DECODER.raw_decode(self.text, self.at - 1)
        return value

    def walk(self) -> Iterator[str]:
        """Walk an object: yield each key; the caller reads the value before it asks for the next key."""
        self.expect("{")
        if self.skips("}"):
            return
        while True:
            key = self.string()
            self.expect(":")
            yield key
            if not self.skips(","):
                break
        self.expect("}")

    def small_object(self) -> dict[str, Any]:
        """Read an object that has no other inside, at most MAX_ENTRY characters long."""
        end = self.text.find("}", self.at, self.at + MAX_ENTRY) + 1
        value = json.loads(self.text[self.at : end], object_pairs_hook=_without_repetition)
        self.at = end
        return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
