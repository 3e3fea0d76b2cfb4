"""Files made to break the loader: each is refused at once, in little memory, by one sentence, or is loaded rightly."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.header import MAX_HEADER_BYTES, File
from tests.mmdit.conftest import same, write_header
from tests.sentences import one_sentence

SECONDS = 1.0
"""Of processor time: the machine may be busy with something else."""
BYTES = 100_000_000
"""Python's own peak; with what the allocator rounds up it stays far below 200 MB."""

EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}

Tensors = dict[str, Tensor]


def refused(path: Path, say: str = "", metered: bool = True) -> str:
    """The sentence by which `inspect`, against the clock, and `load`, against a memory meter, refuse a file."""
    for _ in range(3):  # the processor itself may be slow for a while: the best of three counts
        start = time.process_time()
        with pytest.raises(CheckpointError) as by_inspect:
            checkpoint.inspect(path)
        took = time.process_time() - start
        if took < SECONDS:
            break
    sentence = str(by_inspect.value)
    if metered:  # which makes everything several times slower
        tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as by_load:
            checkpoint.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < SECONDS and peak < BYTES, (took, peak)
    assert sentence == str(by_load.value) and one_sentence(sentence) and say in sentence, sentence
    return sentence


def test_the_valid_file_loads(tmp_path: Path, valid: tuple[Tensors, bytes]) -> None:
    """All that follows is about this file and what was done to it."""
    (tmp_path / "m.safetensors").write_bytes(valid[1])
    assert same(checkpoint.load(tmp_path / "m.safetensors"), valid[0])


# --- cut and lengthened


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, valid: tuple[Tensors, bytes], long_run: bool) -> None:
    """At every byte of the header's length, at many of the header, at and around the border of every tensor."""
    whole = valid[1]
    length = struct.unpack("<Q", whole[:8])[0]
    borders = [8 + length + entry["data_offsets"][0] for entry in json.loads(whole[8 : 8 + length]).values()]
    header = range(8, 8 + length, 1 if long_run else 37)
    cuts = {*range(10), *header, *(border + step for border in borders for step in (-1, 0, 1)), len(whole) - 1}
    path = tmp_path / "m.safetensors"
    path.write_bytes(whole)
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        for door in (checkpoint.inspect, checkpoint.load):
            with pytest.raises(CheckpointError) as caught:
                door(path)
            assert one_sentence(str(caught.value)), cut


@pytest.mark.parametrize("more", [1, 8, 4096])
def test_a_file_with_something_behind_it_is_refused(tmp_path: Path, valid: tuple[Tensors, bytes], more: int) -> None:
    (tmp_path / "m.safetensors").write_bytes(valid[1] + bytes(more))
    refused(tmp_path / "m.safetensors", f"has {more} bytes after its last tensor")


# --- headers that are too much


def numbered(count: int) -> str:
    return "{" + ",".join(f'"t{number}":{json.dumps(EMPTY)}' for number in range(count)) + "}"


def deep_network(depth: int) -> tuple[dict[str, Any], int]:
    """A header that announces that many joint blocks and has one number of each."""
    shapes: dict[str, list[int]] = {
        "x_embedder.proj.weight": [64 * depth, 1, 1, 1],
        "pos_embed": [1, 1, 64 * depth],
        **{f"{name}.weight": [1, 1] for name in ("final_layer.linear", "context_embedder", "y_embedder.mlp.0")},
        **{f"joint_blocks.{index}.a": [1] for index in range(depth)},
    }
    header, at = {}, 0
    for name, shape in shapes.items():
        size = int(torch.Size(shape).numel())
        header[name] = {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header, at


FULL = MAX_HEADER_BYTES - 100
TOO_MUCH: dict[str, Callable[[], tuple[Any, int]]] = {
    "50,000 tensors": lambda: (numbered(50_000), 0),
    "9,990 joint blocks": lambda: deep_network(9_990),
    "brackets": lambda: ('{"a":' + "[" * FULL, 0),
    "braces": lambda: ('{"a":' * (FULL // 5), 0),
    "nested metadata": lambda: ('{"__metadata__":' * (FULL // 16), 0),
    "spaces": lambda: ("{" + " " * FULL + "}", 0),
    "a text of wide characters": lambda: ('{"__metadata__":{"a":"' + "b" * FULL + '\U0001f600"}}', 0),
    "a text of escapes": lambda: ('{"__metadata__":{"a":"' + "\\u0041" * (FULL // 6) + '"}}', 0),
    "a text of backslashes": lambda: ('{"__metadata__":{"a":"' + "\\" * FULL, 0),
    "a name that never ends": lambda: ('{"' + "n" * FULL, 0),
    "a long name": lambda: ('{"' + "n" * FULL + f'":{json.dumps(EMPTY)}}}', 0),
    "an endless number": lambda: ('{"a":' + "9" * FULL + "}", 0),
    "an endless shape": lambda: ('{"a":{"dtype":"U8","shape":[' + "1," * (FULL // 2), 0),
    "keys without names": lambda: ("{" + '"":0,' * (FULL // 5), 0),
    "metadata of nothing": lambda: ('{"__metadata__":{' + '"":"",' * (FULL // 6), 0),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_header_that_is_too_much_is_refused_at_once(tmp_path: Path, kind: str, long_run: bool) -> None:
    header, data = TOO_MUCH[kind]()
    long = kind in ("50,000 tensors", "9,990 joint blocks")  # their entries take 25 MB together
    refused(write_header(tmp_path / "m.safetensors", header, data), metered=not long or long_run)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**31, 2**32 + 2, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_header_longer_than_the_bound_is_never_read(tmp_path: Path, length: int) -> None:
    """Of a file that is really so long, as far as a hole can make it."""
    path = write_header(tmp_path / "m.safetensors", "{}")
    with path.open("r+b") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(min(length + 8, 2**33))
    refused(path, f"announces a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BIG = 2**63
PLACES: dict[str, Any] = {
    "the product of a shape is 2^64": {"red": tensor("U8", [2**32, 2**32], [0, 2**64])},
    "a product that is 0 in 64 bits": {"red": tensor("U8", [2**32, 2**32], [0, 0])},
    "a product that is 8 in 64 bits": {"red": tensor("U8", [2**63 + 4, 2], [0, 8])},
    "offsets at the end of 64 bits": {"red": tensor(offsets=[2**64 - 8, 2**64])},
    "an offset that is 0 in 64 bits": {"red": tensor(offsets=[2**64, 2**64 + 8])},
    "negative offsets": {"red": tensor(offsets=[-8, 0])},
    "an end before the begin": {"red": tensor(offsets=[BIG, 8])},
    "an offset of a thousand digits": {"red": tensor(offsets=[0, int("9" * 400)])},
    "a shape of 300 numbers": {"red": tensor("U8", [2] * 300, [0, 8])},
    "a hole between two": {"red": tensor(offsets=[0, 8]), "blue": tensor(offsets=[16, 24])},
    "one inside the other": {"red": tensor("U8", [24], [0, 24]), "blue": tensor(offsets=[8, 16])},
    "two that share a byte": {"red": tensor("U8", [9], [0, 9]), "blue": tensor("U8", [16], [8, 24])},
    "empty ones at any place": {"red": tensor("U8", [0], [5, 5]), "blue": tensor("U8", [24], [0, 24])},
    "not a number": '{"red":{"dtype":"U8","shape":[NaN],"data_offsets":[0,24]}}',
    "infinite": '{"red":{"dtype":"U8","shape":[24],"data_offsets":[0,Infinity]}}',
    "a power of ten": '{"red":{"dtype":"U8","shape":[24],"data_offsets":[0,2.4e1]}}',
    "a type in another case": {"red": tensor("f32", [6], [0, 24])},
    "a type that torch has and the format has not": {"red": tensor("float32", [6], [0, 24])},
    "bytes for a type": {"red": {"dtype": None, "shape": [24], "data_offsets": [0, 24]}},
    "a shape inside a shape": {"red": tensor("U8", [[24]], [0, 24])},
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_tensor_in_an_impossible_place_is_refused(tmp_path: Path, kind: str) -> None:
    refused(write_header(tmp_path / "m.safetensors", PLACES[kind], 24))


@pytest.mark.parametrize(
    "dtype", ["BOOL", "U8", "I8", "F8_E8M0", "F8_E4M3FNUZ", "F4", "I16", "U32", "I64", "F64", "C64"]
)
def test_a_weight_of_any_other_type_is_refused(tmp_path: Path, valid: tuple[Tensors, bytes], dtype: str) -> None:
    """Types that the format knows and a transformer's weights never have; bytes and file stay in order."""
    header = {name: tensor("F32", list(one.shape), [0, 0]) for name, one in valid[0].items()}
    bits = {"F4": 4, "I16": 16, "U32": 32, "I64": 64, "F64": 64, "C64": 64}.get(dtype, 8)
    header["x_embedder.proj.bias"]["dtype"] = dtype
    at = 0
    for entry in header.values():
        size = int(torch.Size(entry["shape"]).numel()) * (bits if entry["dtype"] == dtype else 32) // 8
        entry["data_offsets"] = [at, at + size]
        at += size
    refused(write_header(tmp_path / "m.safetensors", header, at), f"x_embedder.proj.bias has type {dtype}, expected")


# --- other things under the name of a checkpoint


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))


class Trap:
    """A pickle that would print."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("trapped",)


def with_a_pickle_as_name(path: Path) -> None:
    write_header(path, {pickle.dumps(Trap(), 0).decode("latin-1"): EMPTY})


def with_a_pickle_as_data(path: Path) -> None:
    raw = pickle.dumps(Trap())
    write_header(path, {"red": tensor("U8", [len(raw)], [0, len(raw)])}, len(raw))
    with path.open("r+b") as file:
        file.seek(-len(raw), io.SEEK_END)
        file.write(raw)


DISGUISES: dict[str, Callable[[Path], object]] = {
    "a bomb of zeros": bomb,
    "a torch archive": lambda path: torch.save({"a": Trap()}, path),
    "a pickle with a header before it": with_a_pickle_as_data,
    "a pickle as a tensor's name": with_a_pickle_as_name,
    "a header inside a pickle": lambda path: path.write_bytes(pickle.dumps(b"\x02\0\0\0\0\0\0\0{}")),
    "a page": lambda path: path.write_text("<html><body>404 Not Found</body></html>"),
    "random bytes": lambda path: path.write_bytes(bytes(number * 37 % 256 for number in range(4096))),
    "a byte order mark": lambda path: write_header(path, b"\xef\xbb\xbf{}"),
    "UTF-16": lambda path: write_header(path, '{"red": 1}'.encode("utf-16-le")),
    "one byte that is no UTF-8": lambda path: write_header(path, b'{"__metadata__":{"a":"\xc0\x80"}}'),
    "half a character": lambda path: write_header(path, b'{"__metadata__":{"a":"\xf0\x9f"}}'),
    "nothing": lambda path: path.touch(),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to nowhere": lambda path: path.symlink_to("gone.safetensors"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to(path.parent),
    "a link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to nothing": lambda path: path.symlink_to(os.devnull),
    "a link to a file without size": lambda path: path.symlink_to("/proc/self/mem"),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes and devices have other names elsewhere")
@pytest.mark.parametrize("kind", DISGUISES)
def test_other_things_are_refused_and_never_waited_for(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DISGUISES[kind](tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors")
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a pipe is made otherwise elsewhere")
def test_a_pipe_that_takes_the_files_place_at_the_last_moment_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    ordinary = write_header(tmp_path / "other.safetensors", "{}").stat()
    os.mkfifo(path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda self, **_: ordinary)
        with pytest.raises(CheckpointError, match="is a pipe or a device"):
            checkpoint.inspect(path)


NAMES = [
    "<img src=x onerror=alert(1)>",
    "a\nHybridStitch: all is well",
    "\r\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    os.fsdecode(b"caf\xe9"),
    "  spaces  ",
    "n" * 240,
    "n" * 4000,
    "nul\0byte",
    "%s%n{0}{name}",
    "..",
    "модель 模型 🐸",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_files_name_cannot_break_the_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.safetensors"
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have may still be asked for
        path.write_bytes(b"no checkpoint")
    sentence = refused(path)
    assert str(tmp_path) not in sentence and len(sentence) < 2100
    if name.isprintable() and len(name) < 1000:
        assert sentence.startswith(f"{name}.safetensors: ")


@pytest.mark.parametrize(
    ("code", "say"),
    [("EACCES", "cannot be read (Permission denied)"), ("EIO", "cannot be read (Input/output error)")],
)
def test_what_the_system_refuses_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, say: str
) -> None:
    number = getattr(errno, code)
    path = write_header(tmp_path / "m.safetensors", "{}")

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    for target, name in ((os, "open"), (os, "fstat"), (Path, "stat")):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, fails)
            with pytest.raises(CheckpointError) as caught:
                checkpoint.inspect(path)
        assert say in str(caught.value)


# --- a file that changes while it is read


def interfere(monkeypatch: pytest.MonkeyPatch, after: int, act: Callable[[], object]) -> None:
    """Let something happen to the file once so many tensors have been read."""
    original = File.tensors

    def tensors(self: File, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for number, found in enumerate(original(self, names)):
            if number == after:
                act()
            yield found

    monkeypatch.setattr(File, "tensors", tensors)


def test_a_file_cut_while_it_is_read_is_refused(
    tmp_path: Path, valid: tuple[Tensors, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapped file would end the process here, by a signal."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(valid[1])
    interfere(monkeypatch, 3, lambda: os.truncate(path, 5000))
    with pytest.raises(CheckpointError, match=r"^m\.safetensors: ends inside .*, download or copy the file again\.$"):
        checkpoint.load(path)


def test_a_file_written_while_it_is_read_is_refused(
    tmp_path: Path, valid: tuple[Tensors, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(valid[1])
    os.utime(path, (1, 1))

    def overwrite() -> None:
        with path.open("r+b") as file:
            file.seek(-100, io.SEEK_END)
            file.write(bytes(100))

    interfere(monkeypatch, 3, overwrite)
    with pytest.raises(CheckpointError, match=r"has changed while it was read, try again when it is complete\.$"):
        checkpoint.load(path)


@pytest.mark.parametrize("act", ["unlink", "replace"])
@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays where it is there")
def test_a_file_that_vanishes_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, valid: tuple[Tensors, bytes], monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """What is open stays what it was, whatever takes its name."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(valid[1])
    other = write_header(tmp_path / "other", "{}")
    interfere(monkeypatch, 3, path.unlink if act == "unlink" else lambda: other.replace(path))
    assert same(checkpoint.load(path), valid[0])


def test_a_file_that_is_gone_or_another_since_it_was_inspected_is_refused(
    tmp_path: Path, valid: tuple[Tensors, bytes]
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(valid[1])
    checkpoint.inspect(path)
    write_header(path, numbered(3))
    refused(path, "is missing, expected an SD3 or SD3.5 transformer")
    path.unlink()
    refused(path, "is not there")
