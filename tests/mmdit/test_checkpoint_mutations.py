"""A small valid checkpoint, changed at random: it is loaded rightly or refused, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.mmdit import checkpoint
from tests.sentences import one_sentence

Valid = tuple[dict[str, Tensor], bytes]
WORDS = [
    word.encode()
    for word in '"F32" "F16" "U8" "BF16" 64 [64] 0 1 -1 256 192 1e9 null [] {} } , : joint_blocks.0 joint_blocks.1 '
    'x_block attn .weight .scale_weight model.diffusion_model. __metadata__ dtype shape data_offsets \\u0000 "'.split()
]
"""Of the header, to be put in one another's place."""


@st.composite
def edits(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few random changes of a file: bytes flipped, pieces cut, doubled, moved; numbers and words in the header."""
    kinds = st.sampled_from(["flip", "cut", "insert", "double", "word", "length", "swap"])
    count = draw(st.integers(1, 4))
    made = [
        (draw(kinds), draw(st.floats(0, 1)), draw(st.integers(0, 255)), draw(st.integers(1, 64))) for _ in range(count)
    ]
    words = draw(st.lists(st.sampled_from(WORDS), min_size=2 * count, max_size=2 * count))
    in_header = draw(st.booleans())

    def apply(whole: bytes) -> bytes:
        for number, (kind, place, byte, size) in enumerate(made):
            reach = (
                min(len(whole), 8 + struct.unpack("<Q", whole[:8])[0]) if in_header and len(whole) >= 8 else len(whole)
            )
            at = int(place * max(reach - 1, 0))
            if kind == "flip" and whole:
                whole = whole[:at] + bytes([whole[at] ^ (byte or 1)]) + whole[at + 1 :]
            elif kind == "cut":
                whole = whole[:at] + whole[at + size :]
            elif kind == "insert":
                whole = whole[:at] + bytes([byte]) * size + whole[at:]
            elif kind == "double":
                whole = whole[: at + size] + whole[at:]
            elif kind == "swap":
                whole = whole[:at] + whole[at + size : at + 2 * size] + whole[at : at + size] + whole[at + 2 * size :]
            elif kind == "word":
                whole = replaced(whole, words[2 * number], words[2 * number + 1])
            elif len(whole) >= 8:
                whole = struct.pack("<Q", (struct.unpack("<Q", whole[:8])[0] + size * (byte - 128)) % 2**64) + whole[8:]
        return whole

    return apply


def replaced(whole: bytes, old: bytes, new: bytes) -> bytes:
    """With a word of the header replaced everywhere, and the header's length made to fit."""
    if len(whole) < 8:
        return whole
    length = min(struct.unpack("<Q", whole[:8])[0], len(whole) - 8)
    text = whole[8 : 8 + length].replace(old, new)
    return struct.pack("<Q", len(text)) + text + whole[8 + length :]


def judge(path: Path, whole: bytes) -> bool:
    """Whether a file loads; then its tensors have the shapes of its header and of its architecture."""
    path.write_bytes(whole)
    try:
        info = checkpoint.inspect(path)
    except CheckpointError as error:
        assert one_sentence(str(error))
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
        return False
    shapes = {name: tuple(one.shape) for name, one in checkpoint.load(path).state_dict().items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("scale_weight")}
    assert shapes == info.config.expected_shapes()
    return True


def mutate(path: Path, valid: Valid, examples: int) -> int:
    """Try so many mutations; returns how many of them still load."""
    loaded = []

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(edit=edits())
    def run(edit: Callable[[bytes], bytes]) -> None:
        loaded.append(judge(path, edit(valid[1])))

    run()
    return sum(loaded)


def test_a_mutated_file_is_loaded_rightly_or_refused(tmp_path: Path, valid: Valid) -> None:
    assert 3 < mutate(tmp_path / "m.safetensors", valid, 100) < 97


@pytest.mark.long
def test_many_mutated_files_are_loaded_rightly_or_refused(tmp_path: Path, valid: Valid) -> None:
    assert mutate(tmp_path / "m.safetensors", valid, 20_000) > 100


def test_the_mutator_also_makes_files_that_load(tmp_path: Path, valid: Valid) -> None:
    """A change of the data alone is another checkpoint."""
    changed = valid[1][:-1] + bytes([valid[1][-1] ^ 1])
    assert judge(tmp_path / "m.safetensors", changed)
    save_file(valid[0], tmp_path / "n.safetensors")
    assert judge(tmp_path / "n.safetensors", (tmp_path / "n.safetensors").read_bytes())
