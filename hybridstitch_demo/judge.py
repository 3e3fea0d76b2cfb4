"""A judge of obedience: does a picture show what its prompt names?

A small convolutional network that looks for every drawing at every place of a picture and recognises the ground. It was
trained on scenes, whole and torn, by `judge_training`; it never saw a picture of the pair, so it can say how well the
pair, or a faster way of running it, keeps to the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.words import DRAWINGS, GROUNDS, read

CELL = 16
"""Pixels per cell of the map on which the judge looks for the middles of drawings."""
FOUND = 1.0
"""Logit above which a drawing counts as found: whole ones are far above it, and torn ones pass less often than at 0."""


@dataclass(frozen=True)
class Seen:
    """What the judge sees in one picture.

    Args:
        drawings: names of `words.DRAWINGS`, in their order.
        ground: one of `words.GROUNDS`.
    """

    drawings: tuple[str, ...]
    ground: str

    def obeys(self, prompt: str) -> bool:
        """Whether every drawing that the prompt names is here, on the ground it names.

        A prompt without a ground allows any, one with several allows each; drawings nobody asked for do no harm.
        """
        reading = read(prompt)
        names = {*reading.names, *reading.dropped}
        grounds = names.intersection(GROUNDS) or {self.ground}
        return self.ground in grounds and names.difference(GROUNDS) <= set(self.drawings)


def _convolution(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.SiLU())


class _Residual(nn.Module):
    """A 3×3 convolution beside a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, width, h, w) to the same shape."""
        return x + self.inner(x)


class Judge(nn.Module):
    """Finds drawings by the logit of one standing at each 16-pixel cell; a drawing's logit is its best cell's.

    Args:
        narrow: channels at an eighth of the resolution.
        wide: channels at a sixteenth.
    """

    def __init__(self, narrow: int = 80, wide: int = 112) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(4),
            _convolution(48, narrow, stride=2),
            _Residual(narrow),
            _convolution(narrow, wide, stride=2),
            _Residual(wide),
            _Residual(wide),
            _Residual(wide),
        )
        self.drawings = nn.Conv2d(wide, len(DRAWINGS), 1)
        self.grounds = nn.Conv2d(wide, len(GROUNDS), 1)
        assert self.drawings.bias is not None
        nn.init.constant_(self.drawings.bias, -4.0)  # nearly every cell holds no drawing's middle

    def maps(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map pictures (rows, 3, H, W) in 0..1 to a drawing's logit at every cell (rows, 24, H/16, W/16), and to the
        logits of the ground (rows, 10).
        """
        features = self.trunk(pictures * 2 - 1)
        return self.drawings(features), self.grounds(features).mean((2, 3))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map pictures (rows, 3, H, W) in 0..1 to logits of each drawing's presence (rows, 24), in the order of
        `words.DRAWINGS`, and of the ground (rows, 10), in the order of `words.GROUNDS`.
        """
        drawings, grounds = self.maps(pictures)
        return drawings.amax((2, 3)), grounds

    @torch.inference_mode()
    def found(self, pictures: Tensor) -> list[Seen]:
        """Say what is in each of the pictures (rows, 3, H, W) in 0..1."""
        drawings, grounds = self(pictures)
        return [
            Seen(tuple(name for name, here in zip(DRAWINGS, row) if here), GROUNDS[index])
            for row, index in zip((drawings > FOUND).tolist(), grounds.argmax(1).tolist())
        ]

    def obeyed(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Whether each picture shows what its prompt names; see `Seen.obeys`.

        Args:
            pictures: (rows, 3, H, W) in 0..1, drawings about 48 pixels wide as the pair makes them.
            prompts: one per picture.

        Returns:
            (rows,) of bool.

        Raises:
            ValueError: unless there are as many prompts as pictures.
        """
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(pictures)} pictures with {len(prompts)} prompts, expected one prompt per picture.")
        return torch.tensor(
            [seen.obeys(prompt) for seen, prompt in zip(self.found(pictures), prompts)], dtype=torch.bool
        )


def load_judge(folder: Path = PAIR) -> Judge:
    """Load the trained judge from `folder`, ready for use in fp32."""
    judge = Judge()
    stored = load_file(folder / "judge.safetensors")
    judge.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in stored.items()})
    return judge.eval().requires_grad_(False)
