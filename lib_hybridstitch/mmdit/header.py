"""A safetensors file, opened and read within bounds: its header is checked before anybody believes a word of it.

Layout: 8 bytes with the header's length, a JSON header, the tensors' bytes. Source: the format section of the
safetensors package's documentation. Tensors are read, not mapped: a mapped file that is cut short meanwhile ends the
whole process by a signal that no program can catch, and so does a network drive that goes away.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from lib_hybridstitch.errors import CheckpointError

MAX_HEADER_BYTES = 10_000_000  # the header of SD3.5-Large with its text encoders has 0.2 MB
MAX_TENSORS = 20_000  # the transformer of SD3.5-Large has 923
MAX_NAME = 256
MAX_ENTRY = 1024  # characters of one tensor's entry in the header

TYPES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32",
    64: "U64 I64 F64 C64",
}
BITS = {name: bits for bits, names in TYPES_BY_BITS.items() for name in names.split()}
LOADABLE: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}

DECODER = json.JSONDecoder()
WHITE_SPACE = re.compile(r"[ \t\n\r]*")

PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class Entry(NamedTuple):
    """One tensor of a header: its type, shape and place, in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def refusal(path: Path, reason: str) -> CheckpointError:
    """The error that names a file and says why it cannot be used."""
    return CheckpointError(f"{path.name}: {reason}.")


class File:
    """An open safetensors file whose header has been checked.

    Args:
        path: where it lies.
        stream: it, open.

    Raises:
        CheckpointError: in one sentence, when it is no safetensors file, or a damaged or hostile one.
    """

    def __init__(self, path: Path, stream: BufferedReader) -> None:
        self._path, self._stream = path, stream
        self._state = self._look()
        size = self._state[0]
        length = _header_length(path, stream.read(9), size)
        stream.seek(8)
        try:
            text = stream.read(length).decode()
        except UnicodeDecodeError as error:
            raise refusal(path, "its header is not UTF-8 text, expected a safetensors file") from error
        self._data = 8 + length
        self.entries = _parse_header(path, text)
        _check_places(path, self.entries, size - self._data)

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Read tensors of the `LOADABLE` types, one at a time and all into the same memory.

        Each is valid until the next one is read: whoever keeps it takes a copy.
        """
        room = torch.empty(max((self._size(name) for name in names), default=0), dtype=torch.uint8)
        for name in names:
            entry, raw = self.entries[name], room[: self._size(name)]
            self._stream.seek(self._data + entry.begin)
            if self._stream.readinto(raw.numpy().data) != len(raw):
                raise refusal(self._path, f"ends inside {name}, download or copy the file again")
            yield name, raw.view(LOADABLE[entry.dtype]).reshape(entry.shape)

    def _size(self, name: str) -> int:
        return self.entries[name].end - self.entries[name].begin

    def check_unchanged(self) -> None:
        """Make sure that nobody has written into the file since it was opened; CheckpointError otherwise."""
        if self._look() != self._state:
            raise refusal(self._path, "has changed while it was read, try again when it is complete")

    def _look(self) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds."""
        found = os.fstat(self._stream.fileno())
        return found.st_size, found.st_mtime_ns


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a safetensors file and check its header.

    Raises:
        CheckpointError: in one sentence, when the file cannot be used, or not be read while it is open.
    """
    try:
        with _stream(path) as stream:
            yield File(path, stream)
    except OSError as error:
        if error.errno in NOT_THERE:
            raise refusal(path, "is not there, expected a safetensors file") from error
        raise refusal(path, f"cannot be read ({error.strerror}), expected a readable safetensors file") from error


def _stream(path: Path) -> BufferedReader:
    """Open an ordinary file, and never wait for one that is not, such as a pipe."""
    try:
        _check_kind(path, path.stat().st_mode)
    except ValueError as error:  # a name with a zero in it
        raise refusal(path, "is not there, expected a safetensors file") from error
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    stream = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_kind(path, os.fstat(stream.fileno()).st_mode)  # another one may have taken its place
    except CheckpointError:
        stream.close()
        raise
    return stream


def _check_kind(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise refusal(path, "is a folder, expected a safetensors file")
    if not stat.S_ISREG(mode):
        raise refusal(path, "is a pipe or a device, expected a safetensors file")


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Tell what a file is by its first nine bytes, and return the length of a safetensors header."""
    length = int.from_bytes(start[:8], "little")
    # Lengths such as 640 and 19,280 begin with the bytes of a pickle and of a zip: the brace decides.
    braced = start[8:] == b"{" and length <= MAX_HEADER_BYTES
    if start[:4] == b"GGUF" or path.suffix.lower() == ".gguf":
        raise refusal(path, "is a GGUF file, which only Forge's own loader can open, expected a safetensors file")
    if path.suffix.lower() in PICKLE_SUFFIXES or (not braced and start[:1] == b"\x80") or start[:4] == b"PK\x03\x04":
        raise refusal(path, "is a pickle, which may run code when opened, expected a safetensors file")
    if not braced and start[:2] == b"PK":
        raise refusal(path, "is a zip archive, perhaps of a pickle, expected a safetensors file")
    if size < 10:
        raise refusal(path, f"has {size} bytes, expected a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise refusal(path, f"announces a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    if length + 8 > size:
        raise refusal(path, f"announces a header of {length} bytes but has {size}, download or copy the file again")
    if not braced:
        raise refusal(path, "its header does not begin with a brace, expected a safetensors file")
    return length


def _parse_header(path: Path, text: str) -> dict[str, Entry]:
    """Parse the header piece by piece, so that a hostile one costs no more memory than its text."""
    cursor = _Cursor(text)
    entries: dict[str, Entry] = {}
    metadata_seen = False
    try:
        for name in cursor.walk():
            if name in entries or (name == "__metadata__" and metadata_seen):
                raise refusal(path, f"{name} stands twice in the header, expected every tensor once")
            if name == "__metadata__":
                metadata_seen = True
                for number, _ in enumerate(cursor.walk()):
                    cursor.string()
                    if number == MAX_TENSORS:
                        raise refusal(path, f"__metadata__ is too long, expected at most {MAX_TENSORS} texts")
                continue
            if len(name) > MAX_NAME or not name.isprintable():
                reason = f"{name[:40]!r}... is no tensor name, expected at most {MAX_NAME} printable characters"
                raise refusal(path, reason)
            if len(entries) == MAX_TENSORS:
                raise refusal(path, f"{name} is one tensor too many, expected at most {MAX_TENSORS} in a file")
            entries[name] = _entry(path, name, cursor)
        cursor.expect("")
    except ValueError as error:
        reason = f"its header is broken at character {cursor.at}, expected the JSON of a safetensors file"
        raise refusal(path, reason) from error
    return entries


def _entry(path: Path, name: str, cursor: _Cursor) -> Entry:
    """Read and check one tensor's entry, whatever the size of the file."""
    try:
        fields = cursor.small_object()
    except (ValueError, RecursionError) as error:
        reason = f"{name} has no readable entry in the header, expected dtype, shape and data_offsets"
        raise refusal(path, reason) from error
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise refusal(path, f"{name} has type {dtype!r}, expected a type of the safetensors format")
    if not _are_naturals(shape):
        raise refusal(path, f"{name} has shape {shape!r}, expected a list of non-negative whole numbers")
    if not _are_naturals(offsets) or len(offsets) != 2:
        raise refusal(path, f"{name} has data_offsets {offsets!r}, expected two non-negative whole numbers")
    begin, end = offsets
    bits = prod(shape) * BITS[dtype]
    if 8 * (end - begin) != bits:
        needed = Decimal(bits) / 8  # of any size, and not always a whole number: F4 takes half a byte
        raise refusal(path, f"{name} takes {end - begin} bytes, expected {needed} for {dtype} {shape}")
    return Entry(dtype, tuple(shape), begin, end)


def _are_naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_places(path: Path, entries: Mapping[str, Entry], data_bytes: int) -> None:
    """Make sure that the tensors fill the file's data, in whatever order, without overlap or gap."""
    reached = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.end > data_bytes:
            raise refusal(
                path,
                f"{name} ends at byte {entry.end} of the data but the file has {data_bytes}, expected a whole file: "
                "download or copy it again",
            )
        if entry.begin != reached:
            fault = "overlaps another tensor" if entry.begin < reached else "stands behind a gap"
            raise refusal(path, f"{name} {fault} at byte {entry.begin} of the data, expected it at byte {reached}")
        reached = entry.end
    if reached != data_bytes:
        raise refusal(path, f"has {data_bytes - reached} bytes after its last tensor, expected none")


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
