"""The demo's text encoder."""

from __future__ import annotations

import pytest
import torch

from hybridstitch_demo.words import DRAWINGS, GROUNDS, LENGTH, NAMES, WIDTH, basis, encode, read


@pytest.mark.parametrize(
    ("prompt", "names", "unknown"),
    [
        ("frog and red apple on blue", ("frog", "red apple", "blue"), ()),
        ("A Frog, two RED apples on a sunset background!", ("frog", "red apple", "sunset"), ("two",)),
        ("an apple", ("red apple",), ()),
        ("soccer ball", ("ball",), ()),
        ("gray", ("grey",), ()),
        ("", (), ()),
        ("<b>émeu</b>", (), ("b", "émeu", "b")),
        ("red", (), ("red",)),
    ],
)
def test_reading_free_text(prompt, names, unknown):
    assert read(prompt).names == names
    assert read(prompt).unknown == unknown


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_read_as_itself(name):
    assert read(name).names == (name,)
    assert read(f"some {name}s").names == (name,)


def test_what_does_not_fit_is_said():
    reading = read(" and ".join(DRAWINGS[:7]))
    assert reading.names == DRAWINGS[: LENGTH - 1]
    assert reading.dropped == DRAWINGS[LENGTH - 1 : 7]


def test_vectors_are_orthogonal_and_of_unit_variance():
    assert torch.allclose(basis() @ basis().T, WIDTH * torch.eye(WIDTH), atol=1e-4)
    assert len(NAMES) == len(set(DRAWINGS)) + len(set(GROUNDS)) < WIDTH


def test_encoding_has_one_token_per_name_and_unknown_words_change_nothing():
    context, pooled = encode(["frog on blue", "a zorble frog on blue, please", ""])
    assert context.shape == (3, LENGTH, WIDTH) and pooled.shape == (3, WIDTH)
    assert torch.equal(context[0], context[1]) and torch.equal(pooled[0], pooled[1])
    tokens = basis()[[0, 1 + NAMES.index("frog"), 1 + NAMES.index("blue")]]
    assert torch.equal(context[0, :3], tokens) and not context[0, 3:].any()
    assert torch.allclose(pooled[0], tokens.mean(0))
    assert torch.equal(context[2, 0], basis()[0]) and not context[2, 1:].any()
