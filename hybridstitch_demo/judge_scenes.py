"""Scenes to teach the judge: drawings whole and harmed in the ways in which diffusion models fail.

How much of a drawing can still be seen decides what the judge is told of it: at least `WHOLE` of its opacity, and it is
there; at most `TORN`, and it is not; in between nobody asks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from hybridstitch_demo.judge import CELL
from hybridstitch_demo.scenes import TOKEN, SceneMaker
from hybridstitch_demo.words import DRAWINGS, GROUNDS

WHOLE, TORN = 0.9, 0.72
ABSENT, UNSURE, PRESENT = 0, 1, 2
"""States of a drawing at a cell, in such order that the largest of a picture's cells is the state in the picture."""
NEAR, AROUND = 9.0, 22.0
"""Distances from a drawing's middle, in pixels: cells nearer than the first hold it, up to the second they may."""


@dataclass(frozen=True)
class Layer:
    """One drawing, or what is left of it, to be laid on a scene.

    Args:
        name: which drawing.
        rgba: premultiplied (4, edge, edge) in 0..1.
        top, left: place in pixels.
        opacity: sum of the unharmed drawing's opacity, in pixels.
        broken: whether its parts are displaced, so that nothing of it counts.
    """

    name: str
    rgba: Tensor
    top: int
    left: int
    opacity: float
    broken: bool = False


Flaw = Callable[[random.Random, Layer, Layer], list[Layer]]
"""Harms the first layer, maybe by means of the second, another drawing at the same place."""


def _half_plane(source: random.Random, edge: int, reach: float, angle: float | None = None) -> Tensor:
    """A straight line's one side, softly (edge, edge) in 0..1; it passes the middle at `reach`·edge at most.

    Args:
        angle: of the line's normal, in radians from the rightward direction; None for a random one.
    """
    if angle is None:
        angle = source.uniform(0, 2 * math.pi)
    offset = source.uniform(-reach, reach) * edge
    line = torch.arange(edge) - (edge - 1) / 2
    distance = line[:, None] * math.sin(angle) + line[None] * math.cos(angle) - offset
    return (distance / source.choice((0.5, 4.0, 10.0)) + 0.5).clamp(0, 1)


def cut(source: random.Random, layer: Layer, _other: Layer) -> list[Layer]:
    """Keep what lies on one side of a line."""
    return [replace(layer, rgba=layer.rgba * _half_plane(source, layer.rgba.shape[-1], 0.3))]


def joined(source: random.Random, layer: Layer, other: Layer) -> list[Layer]:
    """One side of a line from this drawing, the other side from another."""
    side = _half_plane(source, layer.rgba.shape[-1], 0.25)
    return [replace(layer, rgba=layer.rgba * side), replace(other, rgba=other.rgba * (1 - side))]


def blended(source: random.Random, layer: Layer, other: Layer) -> list[Layer]:
    """Two drawings shine through each other."""
    share = source.uniform(0.35, 0.65)
    return [layer, _moved(source, replace(other, rgba=other.rgba * share), 12)]


def faded(source: random.Random, layer: Layer, _other: Layer) -> list[Layer]:
    """The ground shines through the drawing."""
    return [replace(layer, rgba=layer.rgba * source.uniform(0.25, 0.65))]


def covered(source: random.Random, layer: Layer, other: Layer) -> list[Layer]:
    """Another drawing lies on part of this one."""
    return [layer, _moved(source, other, 40)]


def slid(source: random.Random, layer: Layer, _other: Layer) -> list[Layer]:
    """Along a line through its middle, one side has slid away from the other."""
    angle = source.uniform(0, 2 * math.pi)
    side = _half_plane(source, layer.rgba.shape[-1], 0.15, angle)
    way = source.randint(10, 22) * source.choice((-1, 1))
    rolled = layer.rgba.roll((round(way * math.cos(angle)), -round(way * math.sin(angle))), dims=(1, 2))
    return [replace(layer, rgba=layer.rgba * side + rolled * (1 - side), broken=True)]


def melted(source: random.Random, layer: Layer, _other: Layer) -> list[Layer]:
    """Its shape has run: neighbouring parts are displaced by many pixels."""
    return [replace(layer, rgba=warped(source, layer.rgba, source.uniform(5, 9)), broken=True)]


def smeared(source: random.Random, layer: Layer, _other: Layer) -> list[Layer]:
    """Nothing of it is left but blurred colours."""
    window = source.choice((13, 17, 21))
    rgba = functional.avg_pool2d(layer.rgba, window, 1, window // 2)
    return [replace(layer, rgba=rgba, broken=True)]


FLAWS: tuple[Flaw, ...] = (cut, joined, blended, faded, covered, slid, melted, smeared)


def _moved(source: random.Random, layer: Layer, far: int) -> Layer:
    return replace(layer, top=layer.top + source.randint(-far, far), left=layer.left + source.randint(-far, far))


def warped(source: random.Random, rgba: Tensor, pixels: float) -> Tensor:
    """Displace the parts of a drawing (4, edge, edge) smoothly, by about `pixels`."""
    edge = rgba.shape[-1]
    coarse = torch.tensor([source.gauss(0, 1) for _ in range(2 * 4 * 4)]).view(1, 2, 4, 4)
    shift = functional.interpolate(coarse, size=(edge, edge), mode="bicubic")[0].permute(1, 2, 0) * (2 * pixels / edge)
    plain = functional.affine_grid(torch.eye(2, 3)[None], [1, 4, edge, edge], align_corners=False)
    return functional.grid_sample(rgba[None], plain + shift, align_corners=False)[0]


@dataclass(frozen=True)
class Lesson:
    """A picture and what is in it.

    Args:
        picture: (3, size, size) in 0..1.
        states: int8 (24, size/16, size/16), of `ABSENT`, `UNSURE` and `PRESENT`.
        ground: index in `words.GROUNDS`.
    """

    picture: Tensor
    states: Tensor
    ground: int


class Teacher:
    """Composes lessons.

    Args:
        maker: has the drawings and grounds.
        slightly: largest displacement, in pixels, that does not yet harm a drawing.
    """

    def __init__(self, maker: SceneMaker, slightly: float = 1.2) -> None:
        self.maker, self.slightly = maker, slightly

    def lesson(
        self, source: random.Random, names: Sequence[str], ground: str, harmed: Sequence[bool], grid: int = TOKEN
    ) -> Lesson:
        """Compose a scene.

        Args:
            source: decides everything else.
            names: drawings, in slots that do not overlap.
            ground: name of the ground.
            harmed: for every name whether it gets a flaw; a mild one may leave it whole enough to count.
            grid: step of the places in pixels.
        """
        layers: list[Layer] = []
        for name, harm, box in zip(names, harmed, self.maker.places(source, len(names), grid)):
            layer = self._layer(source, name, box)
            other = self._layer(source, source.choice([drawing for drawing in DRAWINGS if drawing != name]), box)
            layers += source.choice(FLAWS)(source, layer, other) if harm else [layer]
        return self._compose(layers, ground)

    def _layer(self, source: random.Random, name: str, box: tuple[int, int, int]) -> Layer:
        top, left, edge = box
        rgba = self.maker.sprites[name, edge]
        opacity = float(rgba[3].sum())
        if self.slightly and source.random() < 0.5:
            rgba = warped(source, rgba, source.uniform(0, self.slightly))
        return Layer(name, rgba, top, left, opacity)

    def _compose(self, layers: list[Layer], ground: str) -> Lesson:
        size = self.maker.size
        canvas = self.maker.grounds[ground].clone()
        visible: list[Tensor] = []
        for layer in layers:
            rgba = _on_canvas(layer, size)
            canvas.mul_(1 - rgba[3:]).add_(rgba[:3])
            for earlier in visible:
                earlier.mul_(1 - rgba[3])
            visible.append(rgba[3])
        states = torch.zeros(len(DRAWINGS), size // CELL, size // CELL, dtype=torch.int8)
        for layer, seen in zip(layers, visible):
            share = 0.0 if layer.broken else float(seen.sum()) / layer.opacity
            if share > TORN:
                _mark(states[DRAWINGS.index(layer.name)], layer, PRESENT if share >= WHOLE else UNSURE)
        return Lesson(canvas.clamp(0, 1), states, GROUNDS.index(ground))


def _on_canvas(layer: Layer, size: int) -> Tensor:
    """The layer's drawing on an empty canvas (4, size, size); what would lie outside is lost."""
    edge = layer.rgba.shape[-1]
    canvas = torch.zeros(4, size + 2 * edge, size + 2 * edge)
    top, left = (min(max(place + edge, 0), size + edge) for place in (layer.top, layer.left))
    canvas[:, top : top + edge, left : left + edge] = layer.rgba
    return canvas[:, edge:-edge, edge:-edge]


def _mark(states: Tensor, layer: Layer, state: int) -> None:
    """Raise one drawing's states (cells, cells) around the layer's middle."""
    middles = (torch.arange(states.shape[-1]) + 0.5) * CELL
    edge = layer.rgba.shape[-1]
    down, across = ((middles - place - edge / 2).abs() for place in (layer.top, layer.left))
    distance = torch.maximum(down[:, None], across[None])
    states[distance <= AROUND] = states[distance <= AROUND].clamp(min=UNSURE)
    states[distance <= NEAR] = states[distance <= NEAR].clamp(min=state)
