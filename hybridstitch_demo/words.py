"""A text encoder for the demo pair: every name it knows has a fixed vector; other words change nothing.

It has no weights. A name ("red apple", "blue") becomes one text token, its row of an orthonormal cosine basis, so
that both models share the text conditioning exactly, as SD3.5-Large and -Medium do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

DRAWINGS: tuple[str, ...] = (
    "frog",
    "red apple",
    "cat",
    "fish",
    "star",
    "heart",
    "mushroom",
    "umbrella",
    "car",
    "pumpkin",
    "ball",
    "panda",
    "penguin",
    "tulip",
    "rocket",
    "pig",
    "bee",
    "banana",
    "strawberry",
    "owl",
    "turtle",
    "snowman",
    "house",
    "balloon",
)
FIRST = 16
"""Drawings that the pair learnt first, in scenes of three at most; see `scenes.held_out`."""
GROUNDS: tuple[str, ...] = ("blue", "green", "yellow", "pink", "white", "grey", "sunset", "night", "checks", "dots")
ALIASES: dict[str, str] = {
    "apple": "red apple",
    "red heart": "heart",
    "gray": "grey",
    "soccer ball": "ball",
    "football": "ball",
    "red car": "car",
    "tropical fish": "fish",
    "honeybee": "bee",
    "honey bee": "bee",
}
FILLERS = frozenset("a an and the on in with of background ground".split())

NAMES: tuple[str, ...] = DRAWINGS[:FIRST] + GROUNDS + DRAWINGS[FIRST:]
"""Every name in the order of its vectors: new ones go to the end."""
WIDTH = 64
LENGTH = 6


@dataclass(frozen=True)
class Reading:
    """What was understood of a prompt.

    Args:
        names: known names in order, at most `LENGTH - 1`.
        unknown: words that mean nothing to the pair, in order.
        dropped: known names beyond the room there is.
    """

    names: tuple[str, ...]
    unknown: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def read(prompt: str) -> Reading:
    """Find the known names in free text, longest match first, singular or plural, upper or lower case."""
    words = re.findall(r"[^\W_]+", prompt.lower())
    known = {name: name for name in NAMES} | ALIASES
    longest = max(len(name.split()) for name in known)
    names: list[str] = []
    unknown: list[str] = []
    position = 0
    while position < len(words):
        for size in range(longest, 0, -1):
            phrase = " ".join(words[position : position + size])
            name = known.get(phrase) or known.get(phrase.removesuffix("s")) or known.get(phrase.removesuffix("es"))
            if name and position + size <= len(words):
                names.append(name)
                position += size
                break
        else:
            if words[position] not in FILLERS:
                unknown.append(words[position])
            position += 1
    return Reading(tuple(names[: LENGTH - 1]), tuple(unknown), tuple(names[LENGTH - 1 :]))


def basis() -> Tensor:
    """Return the vectors (WIDTH, WIDTH) of the names, an orthogonal DCT-II basis scaled to unit variance."""
    k = torch.arange(WIDTH, dtype=torch.float64)
    rows = torch.cos(math.pi / WIDTH * (k[None] + 0.5) * k[:, None]) * math.sqrt(2.0)
    rows[0] = 1.0
    return rows.float()


def encode(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Encode prompts as text conditioning.

    Returns:
        context (rows, LENGTH, WIDTH): a start token, then one token per known name, zeros behind;
        pooled (rows, WIDTH): the mean of the tokens. Without a known name there is the start token alone.
    """
    vectors = basis()
    context = torch.zeros(len(prompts), LENGTH, WIDTH)
    pooled = torch.zeros(len(prompts), WIDTH)
    for row, prompt in enumerate(prompts):
        tokens = [0] + [1 + NAMES.index(name) for name in read(prompt).names]
        context[row, : len(tokens)] = vectors[tokens]
        pooled[row] = vectors[tokens].mean(0)
    return context, pooled
