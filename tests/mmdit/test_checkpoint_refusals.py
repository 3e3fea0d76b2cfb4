"""Files that are no usable checkpoint, and the sentence with which each is refused."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig

PREFIX = "model.diffusion_model."
QKV = "joint_blocks.0.x_block.attn.qkv"

MakeTensors = Callable[..., dict[str, Tensor]]
Write = Callable[..., Path]


def refusal(path: Path) -> str:
    """The sentence with which a file is refused, by `inspect` and `load` alike."""
    with pytest.raises(CheckpointError) as by_load:
        checkpoint.load(path)
    with pytest.raises(CheckpointError) as by_inspect:
        checkpoint.inspect(path)
    sentence = str(by_inspect.value)
    assert sentence == str(by_load.value)
    assert sentence.startswith(f"{path.name}: ") and sentence.endswith(".") and "\n" not in sentence
    assert str(path.parent) not in sentence
    return sentence


# What is refused: the transformer


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({f"{QKV}.weight": None}, [f"{QKV}.weight is missing", "[384, 128]"]),
        ({f"{QKV}.weight": torch.zeros(384, 127)}, [f"{QKV}.weight has shape [384, 127], expected [384, 128]"]),
        ({"pos_embed": None}, ["pos_embed is missing"]),
        ({"pos_embed": torch.zeros(1, 0, 128)}, ["pos_embed has shape [1, 0, 128], expected at least one number"]),
        ({f"{QKV}.lora": torch.zeros(1)}, [f"{QKV}.lora is not part of"]),
        ({f"{QKV}.bias": torch.zeros(384, dtype=torch.int8)}, [f"{QKV}.bias has type I8", "F32, F16, BF16"]),
        ({f"{QKV}.bias": torch.zeros(384, dtype=torch.float64)}, [f"{QKV}.bias has type F64", "F8_E5M2"]),
        ({f"{QKV}.scale_weight": torch.ones(384)}, [f"{QKV}.scale_weight has shape [384], expected one number"]),
        ({f"{QKV}.scale_weight": torch.ones(1, dtype=torch.uint8)}, [f"{QKV}.scale_weight has type U8"]),
        ({"x_embedder.proj.scale_weight": torch.ones(1)}, ["x_embedder.proj.scale_weight", "a linear layer's weight"]),
        ({"final_layer.scale_weight": torch.ones(1)}, ["final_layer.scale_weight", "expected one number"]),
    ],
)
@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["prefix", "no prefix"])
def test_incomplete_transformers_are_refused(
    tmp_path: Path,
    tiny_configs: dict[str, MMDiTConfig],
    make_tensors: MakeTensors,
    prefix: str,
    change: dict[str, Tensor | None],
    parts: list[str],
) -> None:
    tensors = {**make_tensors(tiny_configs["SD3-like"]), **change}
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file({prefix + name: tensor for name, tensor in present.items()}, tmp_path / "blue.safetensors")
    sentence = refusal(tmp_path / "blue.safetensors")
    assert all(part in sentence for part in parts), sentence


STABILITY = "expected the single-file checkpoint in Stability's naming"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (f"{PREFIX}input_blocks.0.0.weight", ["SD1.5 or SD2", "expected an SD3 or SD3.5"]),
        (f"{PREFIX}label_emb.0.0.weight", ["SDXL", "expected an SD3 or SD3.5"]),
        ("double_blocks.0.img_attn.qkv.weight", ["looks like Flux"]),
        (f"{PREFIX}double_blocks.0.img_attn.qkv.weight", ["looks like Flux"]),
        ("single_transformer_blocks.0.attn.to_q.weight", ["Flux in diffusers' format"]),
        ("transformer_blocks.0.attn.to_q.weight", ["SD3 in diffusers' format", STABILITY]),
        ("down_blocks.0.resnets.0.conv1.weight", ["in diffusers' format", "expected an SD3 or SD3.5"]),
        ("first_stage_model.decoder.conv_in.weight", ["joint_blocks.0.x_block.attn.qkv.weight is missing"]),
    ],
)
def test_other_families_are_refused_by_name(tmp_path: Path, name: str, parts: list[str]) -> None:
    also = {f"{PREFIX}input_blocks.1.0.bias": torch.zeros(1)} if "label_emb" in name else {}
    save_file({name: torch.zeros(2), **also}, tmp_path / "blue.safetensors")
    sentence = refusal(tmp_path / "blue.safetensors")
    assert all(part in sentence for part in parts), sentence
    assert name in sentence or "missing" in sentence


# What is refused: files that are no safetensors


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")


OTHER_FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "torch archive": ("m.safetensors", lambda path: torch.save({"a": torch.zeros(2)}, path), "is a pickle"),
    "old torch file": (
        "m.safetensors",
        lambda path: torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False),
        "is a pickle",
    ),
    "pickle": ("m.safetensors", lambda path: path.write_bytes(pickle.dumps({"a": 1}, 4)), "is a pickle"),
    "zip": ("m.safetensors", write_zip, "is a pickle"),
    "empty zip": ("m.safetensors", lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)), "is a zip archive"),
    "suffix ckpt": ("m.CKPT", lambda path: save_file({"a": torch.zeros(2)}, path), "is a pickle"),
    "suffix pt": ("m.pt", lambda path: path.write_bytes(b"anything"), "is a pickle"),
    "GGUF": ("m.safetensors", lambda path: path.write_bytes(b"GGUF" + bytes(60)), "only Forge's own loader"),
    "suffix gguf": ("m.gguf", lambda path: path.write_bytes(bytes(60)), "only Forge's own loader"),
    "empty": ("m.safetensors", lambda path: path.write_bytes(b""), "has 0 bytes, expected a safetensors file"),
    "short": ("m.safetensors", lambda path: path.write_bytes(bytes(8)), "has 8 bytes, expected a safetensors file"),
    "text": ("m.safetensors", lambda path: path.write_text("version https://git-lfs"), "announces a header of"),
    "no brace": (
        "m.safetensors",
        lambda path: path.write_bytes(bytes([6, 0, 0, 0, 0, 0, 0, 0]) + b"[1, 2]"),
        "does not begin with a brace",
    ),
    "zeros": ("m.safetensors", lambda path: path.write_bytes(bytes(64)), "does not begin with a brace"),
    "folder": ("m.safetensors", lambda path: path.mkdir(), "is a folder, expected a safetensors file"),
    "nothing": ("m.safetensors", lambda path: None, "is not there, expected a safetensors file"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_refused(tmp_path: Path, kind: str) -> None:
    name, make, part = OTHER_FILES[kind]
    make(tmp_path / name)
    assert part in refusal(tmp_path / name)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    """Its code would leave a file behind."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "trapped",)

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "m.safetensors").write_bytes(pickle.dumps(Trap(), protocol))
        assert "is a pickle" in refusal(tmp_path / "m.safetensors")
    assert not (tmp_path / "trapped").exists()


# What is refused: headers that lie


@pytest.mark.parametrize("kept", [5, 20, 4000, -1], ids=["length", "header", "data", "last byte"])
def test_truncated_files_are_refused(
    tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors, kept: int
) -> None:
    save_file(make_tensors(tiny_config), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:kept])
    expected = "expected a safetensors file" if kept == 5 else "download or copy"
    assert expected in refusal(tmp_path / "m.safetensors")


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LIES: dict[str, tuple[Any, list[str]]] = {
    "beyond the file": ({"red": entry(shape=[4], offsets=[0, 16])}, ["red ends at byte 16", "the file has 8"]),
    "beyond, far": ({"red": entry(shape=[2**61], offsets=[0, 2**63])}, ["red ends at byte 9223372036854775808"]),
    "too long": ({"red": entry(shape=[1])}, ["red takes 8 bytes, expected 4 for F32 [1]"]),
    "too short": ({"red": entry(shape=[3])}, ["red takes 8 bytes, expected 12 for F32 [3]"]),
    "half a byte": ({"red": entry("F4", [15])}, ["red takes 8 bytes, expected 7.5 for F4 [15]"]),
    "backwards": ({"red": entry(offsets=[8, 0])}, ["red takes -8 bytes, expected 8"]),
    "negative offset": ({"red": entry(offsets=[-8, 0])}, ["red has data_offsets [-8, 0], expected two"]),
    "three offsets": ({"red": entry(offsets=[0, 8, 8])}, ["red has data_offsets [0, 8, 8], expected two"]),
    "offset is no integer": ({"red": entry(offsets=[0, 8.0])}, ["red has data_offsets [0, 8.0], expected two"]),
    "negative shape": ({"red": entry(shape=[-2])}, ["red has shape [-2], expected a list of non-negative"]),
    "two negatives": ({"red": entry(shape=[-2, -1])}, ["red has shape [-2, -1], expected a list of non-negative"]),
    "true in shape": ({"red": entry(shape=[True, 2])}, ["red has shape [True, 2], expected a list"]),
    "shape is no list": ({"red": entry(shape="2")}, ["red has shape '2', expected a list"]),
    "unknown type": ({"red": entry("F99")}, ["red has type 'F99', expected a type of the safetensors format"]),
    "type is no text": ({"red": entry(["F32"])}, ["red has type ['F32'], expected a type"]),
    "no shape": ({"red": {"dtype": "F32", "data_offsets": [0, 8]}}, ["red has shape None, expected a list"]),
    "entry is no object": ({"red": 5, "blue": entry()}, ["red has no readable entry", "expected dtype, shape"]),
    "entry in entry": ({"red": {"a": {"b": 1}}}, ["red has no readable entry"]),
    "entry is deep": ('{"red":{"shape":' + 990 * "[" + "}}", ["red has no readable entry"]),
    "entry is long": ('{"red":{"shape":[' + 2000 * "1," + "1]}}", ["red has no readable entry"]),
    "long number": ('{"red":{"shape":[' + 900 * "9" + '],"dtype":"F32","data_offsets":[0,8]}}', ["red takes 8 bytes"]),
    "key twice in entry": ('{"red":{"dtype":"F32","dtype":"U8"}}', ["red has no readable entry"]),
    "tensor twice": ('{"red":' + json.dumps(entry()) + ',"red":' + json.dumps(entry()) + "}", ["red stands twice"]),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', ["__metadata__ stands twice"]),
    "overlap": (
        {"red": entry(), "blue": entry(shape=[1], offsets=[4, 8])},
        ["blue overlaps another tensor at byte 4 of the data, expected it at byte 8"],
    ),
    "same place": ({"red": entry(), "blue": entry()}, ["blue overlaps another tensor at byte 0"]),
    "gap": ({"red": entry(shape=[1], offsets=[4, 8])}, ["red stands behind a gap at byte 4"]),
    "unused end": ({"red": entry(shape=[1], offsets=[0, 4])}, ["has 4 bytes after its last tensor"]),
    "no tensor": ({}, ["has 8 bytes after its last tensor"]),
    "long name": ({300 * "r": entry()}, ["rrrr", "is no tensor name", "256"]),
    "line break in name": ({"red\nINFO": entry()}, [r"'red\nINFO'", "is no tensor name"]),
    "half a character": ('{"red\\ud800":' + json.dumps(entry()) + "}", ["is no tensor name"]),
    "no JSON": ('{"red": nonsense}', ["red has no readable entry"]),
    "key is no text": ("{5: 5}", ["its header is broken at character 1"]),
    "no colon": ('{"red" 5}', ["its header is broken at character 7"]),
    "comma at the end": ('{"__metadata__":{},}', ["its header is broken at character 19"]),
    "text behind": ("{} {}", ["its header is broken at character 3"]),
    "cut": ('{"__metadata__":{"a":"b', ["its header is broken"]),
    "metadata is no text": ('{"__metadata__":{"a":5}}', ["its header is broken at character 21"]),
    "metadata is long": ('{"__metadata__":{' + '"a":"",' * 20_001, ["__metadata__ is too long", "at most 20000"]),
    "metadata is deep": ('{"__metadata__":' + 100_000 * "[" + "}", ["its header is broken at character 16"]),
    "no UTF-8": (b'{"r\xff": 5}', ["its header is not UTF-8 text"]),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_headers_are_refused(tmp_path: Path, write: Write, lie: str) -> None:
    header, parts = LIES[lie]
    sentence = refusal(write(tmp_path / "blue.safetensors", header, 8))
    assert all(part in sentence for part in parts), sentence


def test_too_long_a_header_is_refused_unread(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "m.safetensors", "{}", 20_000_000)
    with path.open("r+b") as file:
        file.write((10_000_001).to_bytes(8, "little"))
    assert "announces a header of 10000001 bytes, expected at most 10000000" in refusal(path)


def test_too_many_tensors_are_refused(tmp_path: Path, write: Write) -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = {f"red.{number}": empty for number in range(20_001)}
    sentence = refusal(write(tmp_path / "m.safetensors", header))
    assert "red.20000 is one tensor too many, expected at most 20000" in sentence
    del header["red.20000"]
    assert "joint_blocks.0.x_block.attn.qkv.weight is missing" in refusal(write(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize("length", [0x280, 0x4B50], ids=["begins like a pickle", "begins like a zip"])
def test_a_header_length_may_look_like_another_format(tmp_path: Path, write: Write, length: int) -> None:
    """A header of 640 bytes starts the file with b"\\x80\\x02", one of 19,280 bytes with b"PK"."""
    path = write(tmp_path / "m.safetensors", json.dumps({"red": entry("U8", [], [0, 1])}).ljust(length), 1)
    assert "joint_blocks.0.x_block.attn.qkv.weight is missing" in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        '{"a":[' + "[]," * 1_000_000,
        '{"__metadata__":{' + '"a":"",' * 500_000,
        '{"__metadata__":{"a":"' + "b" * 3_000_000,
    ],
    ids=["lists", "texts", "long text"],
)
def test_a_hostile_header_costs_little_memory(tmp_path: Path, write: Write, header: str) -> None:
    """Parsed as a whole, a million empty lists take twenty times the file's size; here it is the file and its text."""
    path = write(tmp_path / "m.safetensors", header)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            checkpoint.inspect(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.1 * path.stat().st_size
