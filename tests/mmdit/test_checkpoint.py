"""Checkpoints: what loads, what is refused and in which words, and how much memory it takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_hybridstitch.errors import PairError
from lib_hybridstitch.mmdit import checkpoint
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.mmdit.header import File

PREFIX = "model.diffusion_model."
QKV = "joint_blocks.0.x_block.attn.qkv"
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NEIGHBOURS = {
    "first_stage_model.decoder.conv_in.weight": torch.zeros(3, dtype=torch.float64),
    "text_encoders.clip_l.logit_scale": torch.zeros(()),
    "text_encoders.t5xxl.scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
    "text_encoders.t5xxl.position_ids": torch.zeros(2, 3, dtype=torch.int64),
}

Tensors = dict[str, Tensor]
MakeTensors = Callable[..., Tensors]


def prefixed(tensors: Tensors, prefix: str = PREFIX) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def header_of(shapes: dict[str, tuple[int, ...]], dtype: str, bytes_each: int) -> tuple[dict[str, Any], int]:
    """An honest header for tensors of these shapes, and the size of their data."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + torch.Size(shape).numel() * bytes_each
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return header, at


# What loads


@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["prefix", "no prefix"])
@pytest.mark.parametrize("neighbours", [NEIGHBOURS, {}], ids=["neighbours", "alone"])
def test_every_architecture_loads(
    tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors, prefix: str, neighbours: Tensors
) -> None:
    tensors = make_tensors(tiny_config)
    save_file({**prefixed(tensors, prefix), **neighbours}, tmp_path / "m.safetensors", {"format": "pt"})
    info = checkpoint.inspect(str(tmp_path / "m.safetensors"))
    size = sum(4 * tensor.numel() for tensor in tensors.values())
    assert info == checkpoint.CheckpointInfo(tmp_path / "m.safetensors", tiny_config, prefix, ("F32",), size)
    network = checkpoint.load(info.path)
    loaded = network.state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("stored", DTYPES)
@torch.no_grad()
def test_every_stored_type_loads_and_computes(
    tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors, make_inputs: Callable, stored: str
) -> None:
    """A network in its stored type computes in fp32 exactly what its fp32 copy does."""
    tensors = {name: tensor.to(DTYPES[stored]) for name, tensor in make_tensors(tiny_config).items()}
    save_file(prefixed(tensors), tmp_path / "m.safetensors")
    assert checkpoint.inspect(tmp_path / "m.safetensors").dtypes == (stored,)
    kept, cast = (checkpoint.load(tmp_path / "m.safetensors", dtype=dtype) for dtype in (None, torch.float32))
    assert {tensor.dtype for tensor in kept.state_dict().values()} == {DTYPES[stored]}
    assert all(torch.equal(tensor, tensors[name].float()) for name, tensor in cast.state_dict().items())
    inputs = make_inputs(tiny_config, 8, 12)
    velocity = kept(*inputs)
    assert torch.isfinite(velocity).all()
    assert torch.equal(velocity, cast(*inputs))


@pytest.mark.parametrize("weight_type", ["F32", "BF16", "F8_E4M3"])
@pytest.mark.parametrize("other_type", ["F32", "F16", "F8_E5M2"])
@torch.no_grad()
def test_mixed_stored_types_compute(
    tmp_path: Path,
    tiny_config: MMDiTConfig,
    make_tensors: MakeTensors,
    make_inputs: Callable,
    weight_type: str,
    other_type: str,
) -> None:
    """Weights in one type; norms, biases, the patch convolution and positions in another."""
    tensors = {
        name: tensor.to(DTYPES[weight_type if name.endswith(".weight") and tensor.dim() == 2 else other_type])
        for name, tensor in make_tensors(tiny_config).items()
    }
    save_file(tensors, tmp_path / "m.safetensors")
    assert checkpoint.inspect(tmp_path / "m.safetensors").dtypes == tuple(sorted({weight_type, other_type}))
    kept, cast = (checkpoint.load(tmp_path / "m.safetensors", dtype=dtype) for dtype in (None, torch.float32))
    inputs = make_inputs(tiny_config, 8, 8)
    assert torch.equal(kept(*inputs), cast(*inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_casting_reaches_every_tensor(
    tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors, dtype: torch.dtype
) -> None:
    tensors = make_tensors(tiny_config)
    save_file(prefixed(tensors), tmp_path / "m.safetensors")
    loaded = checkpoint.load(tmp_path / "m.safetensors", dtype=dtype).state_dict()
    assert all(torch.equal(tensor, tensors[name].to(dtype)) for name, tensor in loaded.items())


def scaled(tensors: Tensors, stored: torch.dtype, scale_shape: tuple[int, ...]) -> tuple[Tensors, Tensors]:
    """Every weight of a block as fp8 with a scale of its own, and what the weights then mean, in fp32."""
    file = {"scaled_fp8": torch.zeros(0, dtype=stored)}
    meant = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        if name.startswith("joint_blocks.") and tensor.dim() == 2:
            scale = torch.full(scale_shape, 0.0001 * (number + 1))
            file[name] = (tensor / scale).clamp(-400, 400).to(stored)
            file[name.removesuffix(".weight") + ".scale_weight"] = scale
            file[name.removesuffix(".weight") + ".scale_input"] = torch.ones(scale_shape)
            meant[name] = file[name].float() * scale
        else:
            file[name] = tensor.half()
            meant[name] = file[name].float()
    return file, meant


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scale_shape", [(), (1,)], ids=["scalar", "one"])
@torch.no_grad()
def test_scaled_fp8(
    tmp_path: Path,
    tiny_config: MMDiTConfig,
    make_tensors: MakeTensors,
    make_inputs: Callable,
    stored: torch.dtype,
    scale_shape: tuple[int, ...],
) -> None:
    file, meant = scaled(make_tensors(tiny_config), stored, scale_shape)
    save_file({**prefixed(file), **NEIGHBOURS}, tmp_path / "m.safetensors")
    kept = checkpoint.load(tmp_path / "m.safetensors")
    qkv = kept.get_submodule(QKV)
    assert qkv.weight.dtype == stored
    assert torch.equal(qkv.scale_weight, file[f"{QKV}.scale_weight"].reshape(()))
    for dtype in (torch.float32, torch.bfloat16):
        cast = checkpoint.load(tmp_path / "m.safetensors", dtype=dtype)
        assert all(torch.equal(cast.state_dict()[name], tensor.to(dtype)) for name, tensor in meant.items())
        assert cast.get_submodule(QKV).scale_weight is None
    inputs = make_inputs(tiny_config, 8, 8)
    in_fp32 = checkpoint.load(tmp_path / "m.safetensors", dtype=torch.float32)(*inputs)
    assert torch.equal(kept(*inputs), in_fp32)


@torch.no_grad()
def test_a_small_scale_survives_half_precision(
    tmp_path: Path, tiny_configs: dict[str, MMDiTConfig], make_tensors: MakeTensors
) -> None:
    """In fp16 a scale of 206.5 · 2⁻²⁴ would itself be rounded by 0.24 %; weight · scale may be off by 0.05 % only."""
    scale = 206.5 * 2**-24
    file, _ = scaled(make_tensors(tiny_configs["SD3-like"]), torch.float8_e4m3fn, ())
    file[f"{QKV}.scale_weight"] = torch.tensor(scale)
    file[f"{QKV}.bias"] = torch.zeros(384)
    save_file(file, tmp_path / "m.safetensors")
    layer = checkpoint.load(tmp_path / "m.safetensors").get_submodule(QKV)
    weight = layer(torch.eye(128, dtype=torch.float16)).T
    assert weight.dtype == torch.float16
    torch.testing.assert_close(weight.float(), file[f"{QKV}.weight"].float() * scale, rtol=2**-11, atol=2**-25)


def test_no_other_tensor_is_read(
    tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = scaled(make_tensors(tiny_config), torch.float8_e4m3fn, ())
    save_file({**prefixed(file), **NEIGHBOURS}, tmp_path / "m.safetensors")
    read = []

    def recording(self: File, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in original(self, names):
            read.append(name)
            yield name, tensor

    original = File.tensors
    monkeypatch.setattr(File, "tensors", recording)
    checkpoint.load(tmp_path / "m.safetensors")
    wanted = {name for name in prefixed(file) if not name.endswith((".scale_input", "scaled_fp8"))}
    assert len(read) == len(set(read))
    assert set(read) == wanted


def test_weights_outlive_the_file(tmp_path: Path, tiny_config: MMDiTConfig, make_tensors: MakeTensors) -> None:
    """Loaded weights are no view of the file, which may be overwritten (and on Windows deleted) at once."""
    tensors = make_tensors(tiny_config)
    save_file(tensors, tmp_path / "m.safetensors")
    network = checkpoint.load(tmp_path / "m.safetensors")
    with (tmp_path / "m.safetensors").open("r+b") as file:
        file.write(bytes((tmp_path / "m.safetensors").stat().st_size))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("depth", "qk_norm", "dual", "positions"),
    [(24, False, 0, 192), (38, True, 0, 192), (24, True, 13, 384)],
    ids=["SD3-medium", "SD3.5-Large", "SD3.5-Medium"],
)
def test_released_sizes_are_inspected_from_the_header(
    tmp_path: Path, write: Callable[..., Path], depth: int, qk_norm: bool, dual: int, positions: int
) -> None:
    """Files of the true sizes whose data is a hole: only the header can have been read."""
    config = MMDiTConfig(depth, 2, 16, 16, 4096, 2048, positions, qk_norm, tuple(range(dual)))
    header, size = header_of(prefixed(config.expected_shapes()), "F8_E4M3", 1)
    path = write(tmp_path / "m.safetensors", header, size)
    assert checkpoint.inspect(path) == checkpoint.CheckpointInfo(path, config, PREFIX, ("F8_E4M3",), size)
    assert size > 2e9


def test_pairs_are_checked_by_file_name(
    tmp_path: Path, tiny_configs: dict[str, MMDiTConfig], make_tensors: MakeTensors
) -> None:
    infos = {}
    for name, options in {"large": {}, "small": {}, "other": {"context_dim": 64}}.items():
        config = MMDiTConfig(**{**vars(tiny_configs["SD3-like"]), **options})
        save_file(make_tensors(config), tmp_path / f"{name}.safetensors")
        infos[name] = checkpoint.inspect(tmp_path / f"{name}.safetensors")
    checkpoint.check_pair(infos["large"], infos["small"])
    with pytest.raises(PairError, match=r"^large.safetensors and other.safetensors .* text width are 96 and 64"):
        checkpoint.check_pair(infos["large"], infos["other"])


# Memory

MEASURE = """
import sys, threading, time, torch
from pathlib import Path
from safetensors.torch import load as load_bytes
from lib_hybridstitch.mmdit import checkpoint

def anonymous():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])

def watch():
    while not done.wait(0.0001):
        seen.append(anonymous())

def everything_at_once(path, dtype):
    raw = Path(path).read_bytes()
    tensors = {name: tensor.to(dtype) for name, tensor in load_bytes(raw).items()}
    time.sleep(0.1)  # a busy machine wakes the watcher late
    return tensors

path, how, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
torch.set_num_threads(1)
checkpoint.load(sys.argv[4], dtype=dtype)
done, before = threading.Event(), anonymous()
seen = [before]
watcher = threading.Thread(target=watch)
watcher.start()
kept = checkpoint.load(path, dtype=dtype) if how == "stream" else everything_at_once(path, dtype)
seen.append(anonymous())
done.set()
watcher.join()
print(max(seen) - before, len(seen))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RssAnon is a number of Linux")
@pytest.mark.parametrize(("stored", "dtype"), [("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_peak_memory_is_the_weights_and_one_tensor(
    tmp_path: Path, tiny_configs: dict[str, MMDiTConfig], make_tensors: MakeTensors, stored: str, dtype: str
) -> None:
    """A fresh process loads about 32 million parameters, while a thread watches its anonymous memory (RssAnon).

    The same meter, put on a loader that takes the file at once, must show more than is allowed. A tiny checkpoint is
    loaded first, so that what torch sets up once is not counted.
    """
    config = MMDiTConfig(**{**vars(tiny_configs["SD3.5-Large-like"]), "depth": 6})
    shapes = config.expected_shapes()
    ones = {name: torch.ones(shape, dtype=getattr(torch, stored)) for name, shape in shapes.items()}
    save_file(ones, tmp_path / "big")
    save_file(make_tensors(tiny_configs["SD3-like"]), tmp_path / "tiny")
    sizes = [2 * torch.Size(shape).numel() for shape in shapes.values()]
    slack = 8_000_000
    allowed = sum(sizes) + max(sizes) + slack
    peaks = {}
    for how in ("stream", "at once"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "big"), how, dtype, str(tmp_path / "tiny")]
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        peaks[how], samples = map(int, output.stdout.split())
        assert samples >= 10
    assert sum(sizes) - slack < peaks["stream"] <= allowed < peaks["at once"], (peaks, sum(sizes), max(sizes))
