"""Training data: openly licensed drawings composed on grounds; the caption names them, the seed places them.

The drawings are Google's Noto emoji (npm package `@iconify-json/noto`, Apache-2.0), rasterised with resvg. Needed for
training only.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from hybridstitch_demo.words import DRAWINGS, FIRST, GROUNDS

PACKAGE = "@iconify-json/noto"
ICONS: dict[str, str] = {
    "cat": "cat-face",
    "fish": "tropical-fish",
    "heart": "red-heart",
    "car": "automobile",
    "pumpkin": "jack-o-lantern",
    "ball": "soccer-ball",
    "pig": "pig-face",
    "bee": "honeybee",
}
PLAIN: dict[str, tuple[int, int, int]] = {
    "blue": (92, 148, 226),
    "green": (104, 178, 108),
    "yellow": (246, 214, 110),
    "pink": (240, 164, 190),
    "white": (246, 246, 244),
    "grey": (136, 140, 148),
}
GRADIENTS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "sunset": ((120, 90, 170), (250, 170, 110)),
    "night": ((18, 22, 60), (70, 90, 160)),
}
TOKEN = 16
"""Pixels per token: drawings sit on this grid, so that one looks the same to the network wherever it stands."""
SIZE = 128
"""Edge of a scene in pixels, unless another is asked for; a scene of another size is the same scene, drawn as sharp."""
EDGE = 48
"""Edge of a drawing in a scene of `SIZE`."""
COUNTS = (1, 2, 2, 3, 3, 4)
"""How many drawings a scene has, each as often as it stands here."""


def fetch_icons(cache: Path) -> dict[str, str]:
    """Return icon name → SVG text, downloading the package with npm into `cache` at the first call.

    Raises:
        RuntimeError: when npm cannot deliver the package.
    """
    archive = next(iter(cache.glob("*.tgz")), None)
    if archive is None:
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "pack", PACKAGE], cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"npm could not fetch {PACKAGE}, which training needs: {done.stderr.strip()[-300:]}")
        archive = next(cache.glob("*.tgz"))
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member is not None, "every iconify package holds icons.json"
        icons = json.load(member)
    size = icons.get("width", 16)
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {0} {0}">'
    return {name: head.format(size) + icon["body"] + "</svg>" for name, icon in icons["icons"].items()}


def rasterise(svg: str, size: int) -> Tensor:
    """Return the drawing as premultiplied RGBA (4, size, size) in 0..1."""
    import numpy
    import resvg_py
    from PIL import Image

    picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=4 * size, height=4 * size))))
    rgba = torch.from_numpy(numpy.asarray(picture.convert("RGBA")).copy()).permute(2, 0, 1).float() / 255
    rgba[:3] *= rgba[3:]
    return functional.avg_pool2d(rgba, 4)


def ground(name: str, size: int) -> Tensor:
    """Paint a ground (3, size, size) in 0..1."""
    if name in PLAIN:
        return torch.tensor(PLAIN[name]).float().div(255)[:, None, None].expand(3, size, size).clone()
    if name in GRADIENTS:
        top, bottom = (torch.tensor(colour).float().div(255)[:, None, None] for colour in GRADIENTS[name])
        return torch.lerp(top, bottom, torch.linspace(0, 1, size)[None, :, None]).expand(3, size, size).clone()
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    tile = TOKEN * size // SIZE
    if name == "checks":
        dark = ((rows // tile + columns // tile) % 2).float()
        light_colour, dark_colour = torch.tensor([0.93, 0.90, 0.84]), torch.tensor([0.80, 0.72, 0.62])
    else:
        middle = (tile - 1) / 2
        radius2 = (rows % tile - middle) ** 2 + (columns % tile - middle) ** 2
        dark = (3.5 * tile / TOKEN - radius2.sqrt() + 0.5).clamp(0, 1)
        light_colour, dark_colour = torch.tensor([0.74, 0.90, 0.88]), torch.tensor([0.36, 0.62, 0.66])
    return torch.lerp(light_colour[:, None, None], dark_colour[:, None, None], dark[None])


def held_out(names: Sequence[str], ground_name: str) -> bool:
    """Whether a combination is kept from training, so that the benchmarks can ask for what the pair never saw.

    An eighth of them is, chosen by a checksum. Combinations of up to three of the first drawings never are: the pair
    had seen those before there was a rule.
    """
    if len(names) < 4 and all(name in DRAWINGS[:FIRST] for name in names):
        return False
    return zlib.crc32(" ".join([*sorted(names), ground_name]).encode()) % 8 == 0


def combination(random_source: random.Random, wanted: bool, counts: tuple[int, ...] = COUNTS) -> tuple[list[str], str]:
    """Draw names, as many as one of `counts`, and a ground: held-out ones if `wanted`, else others."""
    while True:
        names = random_source.sample(DRAWINGS, random_source.choice(counts))
        ground_name = random_source.choice(GROUNDS)
        if held_out(names, ground_name) == wanted:
            return names, ground_name


def caption(names: Sequence[str], ground_name: str) -> str:
    """The caption of a scene: it says nothing about places."""
    return " and ".join(names) + " on " + ground_name


class SceneMaker:
    """Composes scenes.

    Args:
        cache: where the package of drawings is kept.
        size: edge of a scene in pixels, a multiple of 128.
        edges: possible edges of a drawing in a scene of 128 pixels; in larger ones they grow with it.
        counts: how many drawings a scene has, each as often as it stands there.
    """

    def __init__(
        self, cache: Path, size: int = SIZE, edges: tuple[int, ...] = (EDGE,), counts: tuple[int, ...] = COUNTS
    ) -> None:
        icons = fetch_icons(cache)
        self.size, self.counts = size, counts
        self.edges = tuple(edge * size // SIZE for edge in edges)
        self.sprites = {
            (name, edge): rasterise(icons[ICONS.get(name, name.replace(" ", "-"))], edge)
            for name in DRAWINGS
            for edge in self.edges
        }
        self.grounds = {name: ground(name, size) for name in GROUNDS}

    def make(self, random_source: random.Random, grid: int = TOKEN) -> tuple[Tensor, str]:
        """Compose one scene of drawings that do not overlap, never a held-out combination.

        Args:
            random_source: decides everything.
            grid: step of the drawings' places in pixels.

        Returns:
            picture (3, size, size) in 0..1, and its caption.
        """
        names, ground_name = combination(random_source, wanted=False, counts=self.counts)
        boxes = self.places(random_source, len(names), grid)
        picture = self.grounds[ground_name].clone()
        for name, (top, left, edge) in zip(names, boxes):
            sprite = self.sprites[name, edge]
            spot = picture[:, top : top + edge, left : left + edge]
            spot.mul_(1 - sprite[3:]).add_(sprite[:3])
        return picture, caption(names, ground_name)

    def places(self, random_source: random.Random, count: int, grid: int = TOKEN) -> list[tuple[int, int, int]]:
        """Draw `count` boxes (top, left, edge), in pixels, that do not overlap."""
        while True:
            boxes = [self._place(random_source, grid) for _ in range(count)]
            if not any(_overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
                return boxes

    def _place(self, random_source: random.Random, grid: int) -> tuple[int, int, int]:
        edge = random_source.choice(self.edges)
        steps = (self.size - edge) // grid
        return random_source.randint(0, steps) * grid, random_source.randint(0, steps) * grid, edge


def _overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    return abs(2 * a[0] + a[2] - 2 * b[0] - b[2]) < a[2] + b[2] and abs(2 * a[1] + a[2] - 2 * b[1] - b[2]) < a[2] + b[2]


def default_cache() -> Path:
    """Where training keeps the drawings it downloaded."""
    return Path(tempfile.gettempdir()) / "hybridstitch-drawings"
