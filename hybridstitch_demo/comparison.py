"""The picture `comparison.png`: what each way of drawing made, where the large model worked, where the time went."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lib_hybridstitch.plans.plan import Kind

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLOURS: dict[Kind, Colour] = {
    Kind.LARGE: (0, 114, 178),
    Kind.CFG_CACHED: (86, 180, 233),
    Kind.MASKED: (230, 159, 0),
    Kind.SMALL: (0, 158, 115),
    Kind.SMALL_CFG_CACHED: (120, 208, 178),
    Kind.EXTRAPOLATED: (172, 176, 182),
}
"""Distinguishable without full colour vision: Okabe and Ito, "Color Universal Design", 2008."""
EXPLAINED = {
    Kind.LARGE: "the large model on everything",
    Kind.CFG_CACHED: "the large model on the prompt",
    Kind.MASKED: "the large model on the mask",
    Kind.SMALL: "the small model on everything",
    Kind.SMALL_CFG_CACHED: "the small model on the prompt",
    Kind.EXTRAPOLATED: "no model",
}

PAPER: Colour = (250, 250, 248)
INK: Colour = (28, 32, 40)
GREY: Colour = (104, 110, 120)
RULE: Colour = (222, 223, 221)
SHADE: Colour = (24, 28, 40)

SUBSTITUTES = str.maketrans(
    {"×": "x", "σ": "sigma", "→": "->", "–": "-", "—": "-", "≈": "about ", "²": "^2", "³": "^3"}
)
DRAWABLE = frozenset("·…‘’“”±°").union(map(chr, range(32, 127)))
"""What Pillow's own font has and this picture uses."""

WIDTH = 1460
"""Of what is between the margins."""
MARGIN = 44
GAP = 22
LARGEST_CELL = 346
LABEL = 300
"""Left of the bars: whose they are."""
VALUE = 150
"""Right of the bars: their sum."""
BAR = 96
"""Height of the tallest bar."""
STUB = 3
"""Height of a bar that took no time worth showing."""


@dataclass(frozen=True)
class Column:
    """The words above the pictures of one way."""

    title: str
    subtitle: str


@dataclass(frozen=True)
class Cell:
    """One picture.

    Args:
        picture: RGB (3, H, W) in 0..1.
        words: below it.
        mask: how often each token was refined, (h, w) in 0..1; laid over the picture.
    """

    picture: Tensor
    words: str = ""
    mask: Tensor | None = None


@dataclass(frozen=True)
class Row:
    """One sample: the same prompt and seed, drawn in every way.

    Args:
        caption: the prompt and the seed.
        cells: one per column.
    """

    caption: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Chart:
    """The steps of one way as bars.

    Args:
        title: whose steps they are.
        words: what they are, a line each.
        ms: milliseconds of the whole run.
        accent: stands out beside it; the speed-up, say.
        bars: kind and milliseconds of every step.
    """

    title: str
    words: Sequence[str]
    ms: float
    accent: str
    bars: tuple[tuple[Kind, float], ...]


def comparison(
    columns: Sequence[Column], rows: Sequence[Row], charts: Sequence[Chart], headline: str, note: str = ""
) -> Image.Image:
    """Draw all of it.

    Args:
        columns: left to right.
        rows: the samples, one below the other.
        charts: one below the other, to one scale.
        headline: the one sentence to remember.
        note: what a reader must know to judge the numbers (sizes, steps, machine).

    Raises:
        ValueError: when there are no rows, or a row has not one picture for every column.
    """
    if not rows or not columns or any(len(row.cells) != len(columns) for row in rows):
        raise ValueError("a comparison needs at least one row, and every row one picture for every column")
    cell = min(LARGEST_CELL, (WIDTH - GAP * (len(columns) - 1)) // len(columns))
    blocks = [(_header(headline, note), 30), (_headings(columns, cell), 16)]
    blocks += [(_row(row, cell), 22) for row in rows]
    blocks += [(_charts(charts), 0)] if any(chart.bars for chart in charts) else []
    height = sum(block.height + gap for block, gap in blocks)
    whole = Image.new("RGB", (WIDTH + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    top = MARGIN
    for block, gap in blocks:
        whole.paste(block, (MARGIN, top))
        top += block.height + gap
    return whole


# --- pictures --------------------------------------------------------------------------------------------------------


def to_image(picture: Tensor, width: int) -> Image.Image:
    """Turn RGB (3, H, W) in 0..1 into an image of `width` pixels, its proportions kept; NaN becomes black."""
    pixels = picture.detach().float().cpu().nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    image = Image.fromarray(numpy.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    height = max(1, round(width * image.height / image.width))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def overlay(picture: Tensor, mask: Tensor, width: int) -> Image.Image:
    """Draw a picture whose never-refined tokens are dimmed, the others the clearer the more often they were refined.

    Args:
        picture: RGB (3, H, W) in 0..1.
        mask: share of the masked steps in which the large model computed the token, (h, w) in 0..1.
        width: of the result in pixels.
    """
    image = to_image(picture, width)
    share = mask.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    strength = torch.where(share > 0, 0.40 * (1 - share), torch.full_like(share, 0.74))
    alpha = Image.fromarray(numpy.ascontiguousarray((255 * strength).round().to(torch.uint8).numpy()))
    image.paste(Image.new("RGB", image.size, SHADE), mask=alpha.resize(image.size, Image.Resampling.NEAREST))
    _outline(ImageDraw.Draw(image), share > 0, image.size)
    return image


def _outline(draw: ImageDraw.ImageDraw, refined: Tensor, size: tuple[int, int]) -> None:
    """Draw a line between tokens that were refined (h, w) and tokens that never were."""
    height, width = refined.shape
    xs = [round(column * size[0] / width) for column in range(width + 1)]
    ys = [round(row * size[1] / height) for row in range(height + 1)]
    colour = COLOURS[Kind.MASKED]
    for row, column in (refined[:, 1:] != refined[:, :-1]).nonzero().tolist():
        draw.line([(xs[column + 1], ys[row]), (xs[column + 1], ys[row + 1])], colour, 2)
    for row, column in (refined[1:] != refined[:-1]).nonzero().tolist():
        draw.line([(xs[column], ys[row + 1]), (xs[column + 1], ys[row + 1])], colour, 2)


def _header(headline: str, note: str) -> Image.Image:
    lines = [(line, 32, INK) for line in wrap(headline, font(32), WIDTH)]
    if note:
        lines += [("", 6, GREY)] + [(line, 16, GREY) for line in wrap(note, font(16), WIDTH)]
    return _text_block(lines, WIDTH)


def _headings(columns: Sequence[Column], cell: int) -> Image.Image:
    """The words above the pictures, below a rule."""
    texts = [
        _text_block(
            [(line, 18, INK) for line in wrap(column.title, font(18), cell)]
            + [(line, 15, GREY) for line in wrap(column.subtitle, font(15), cell)],
            cell,
        )
        for column in columns
    ]
    block = Image.new("RGB", (WIDTH, 20 + max(text.height for text in texts)), PAPER)
    ImageDraw.Draw(block).line([(0, 0), (WIDTH, 0)], RULE, 1)
    for index, text in enumerate(texts):
        block.paste(text, (index * (cell + GAP), 20))
    return block


def _row(row: Row, cell: int) -> Image.Image:
    caption = _text_block([(line, 15, GREY) for line in wrap(row.caption, font(15), WIDTH)], WIDTH)
    images = [
        to_image(one.picture, cell) if one.mask is None else overlay(one.picture, one.mask, cell) for one in row.cells
    ]
    words = [_text_block([(line, 14, GREY) for line in wrap(one.words, font(14), cell)], cell) for one in row.cells]
    first = caption.height + 8
    below = first + max(image.height for image in images) + 8
    block = Image.new("RGB", (WIDTH, below + max(word.height for word in words)), PAPER)
    block.paste(caption, (0, 0))
    for index, (image, word) in enumerate(zip(images, words, strict=True)):
        block.paste(image, (index * (cell + GAP), first))
        block.paste(word, (index * (cell + GAP), below))
    return block


# --- bars ------------------------------------------------------------------------------------------------------------


def _charts(charts: Sequence[Chart]) -> Image.Image:
    """The bars of all ways: a step has the same place everywhere, a millisecond the same height."""
    tallest = max(ms for chart in charts for _, ms in chart.bars) or 1.0
    legend = _legend([kind for kind in Kind if any(kind == one for chart in charts for one, _ in chart.bars)])
    first, each = 62, BAR + 40
    steps = max(len(chart.bars) for chart in charts)
    block = Image.new("RGB", (WIDTH, first + len(charts) * each + 34 + legend.height), PAPER)
    draw = ImageDraw.Draw(block)
    draw.line([(0, 0), (WIDTH, 0)], RULE, 1)
    draw.text((0, 20), "Where the time goes, step by step", INK, font(20))
    for index, chart in enumerate(charts):
        _chart(block, chart, first + index * each, tallest, steps)
    bottom = first + len(charts) * each - 20
    slot = (WIDTH - LABEL - VALUE) / steps
    for number in sorted({1, *range(steps, 1, -max(1, round(steps / 7)))}):
        draw.text((LABEL + (number - 0.5) * slot, bottom), f"{number}", GREY, font(13), anchor="ma")
    block.paste(legend, (0, bottom + 48))
    return block


def _chart(block: Image.Image, chart: Chart, top: int, tallest: float, steps: int) -> None:
    """One way's bars, with its words on the left and its sum on the right."""
    draw, base = ImageDraw.Draw(block), top + BAR
    right, slot = WIDTH - VALUE, (WIDTH - LABEL - VALUE) / steps
    scale = BAR / tallest
    every = tick(tallest, scale, apart=38)
    for number in range(1, math.floor(tallest / every + 1e-9) + 1):
        height = base - round(number * every * scale)
        draw.line([(LABEL, height), (right, height)], RULE, 1)
        ms = number * every
        draw.text((LABEL - 8, height), f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s", GREY, font(12), anchor="rm")
    for index, (kind, ms) in enumerate(chart.bars):
        left, end = LABEL + round(index * slot), LABEL + round((index + 1) * slot)
        height = max(STUB, round(ms * scale))
        draw.rectangle([left, base - height, max(left, end - (3 if slot > 8 else 1)), base - 1], COLOURS[kind])
    draw.line([(LABEL, base), (right, base)], GREY, 1)
    words = [(line, 18, INK) for line in wrap(chart.title, font(18), LABEL - 80)]
    words += [(line, 14, GREY) for text in chart.words for line in wrap(text, font(14), LABEL - 80)]
    block.paste(_text_block(words, LABEL - 80), (0, top - 2))
    draw.text((WIDTH, base - 2), duration(chart.ms), INK, font(18), anchor="rs")
    draw.text((WIDTH, base - 30), chart.accent, INK, font(30), anchor="rs")


def _legend(kinds: Sequence[Kind]) -> Image.Image:
    """Each kind's colour, name and meaning, as many in a line as fit."""
    places: list[tuple[int, int]] = []
    left, line = 0, 0
    for kind in kinds:
        width = 26 + math.ceil(font(15).getlength(f"{kind.word}  {EXPLAINED[kind]}"))
        if left and left + width > WIDTH:
            left, line = 0, line + 1
        places.append((left, 28 * line))
        left += width + 30
    block = Image.new("RGB", (WIDTH, 28 * (line + 1)), PAPER)
    draw = ImageDraw.Draw(block)
    for kind, (left, top) in zip(kinds, places, strict=True):
        draw.rectangle([left, top + 6, left + 15, top + 21], COLOURS[kind])
        draw.text((left + 26, top + 14), kind.word, INK, font(15), anchor="lm")
        after = left + 26 + font(15).getlength(kind.word + "  ")
        draw.text((after, top + 14), EXPLAINED[kind], GREY, font(15), anchor="lm")
    return block


def tick(longest: float, scale: float, apart: float = 100.0) -> float:
    """Return the smallest of 1, 2, 5 · 10ⁿ milliseconds that puts ticks at least `apart` pixels apart.

    Args:
        longest: milliseconds shown.
        scale: pixels per millisecond.
        apart: pixels.
    """
    power = 10.0 ** math.floor(math.log10(min(apart / scale, longest)))
    return next((factor * power for factor in (1, 2, 5) if factor * power * scale >= apart), 10 * power)


# --- words -----------------------------------------------------------------------------------------------------------


def duration(ms: float) -> str:
    """Write milliseconds for people: "8.5 ms", "850 ms", "1.24 s", "75.0 s"."""
    if ms < 10:
        return f"{ms:.2g} ms" if ms < 1 else f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.2f} s" if ms < 10_000 else f"{ms / 1000:.1f} s"


def font(size: int) -> Font:
    """Return Pillow's own font, so that no font file is needed."""
    return ImageFont.load_default(size)


def plain(text: str) -> str:
    """Spell text with characters the font has: accents are dropped, what has no substitute becomes "?"."""
    letters = unicodedata.normalize("NFD", " ".join(text.split()).translate(SUBSTITUTES))
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    return "".join(letter if letter in DRAWABLE else "?" for letter in kept)


def wrap(text: str, chosen: Font, width: int) -> list[str]:
    """Break text into lines of at most `width` pixels, at spaces, and inside a word only when it alone is too long."""
    lines = [""]
    for word in plain(text).split():
        joined = f"{lines[-1]} {word}".strip()
        if chosen.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and chosen.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _text_block(lines: Sequence[tuple[str, int, Colour]], width: int) -> Image.Image:
    """Draw lines of (text, size, colour) below one another."""
    leading = 1.35
    block = Image.new("RGB", (width, max(1, math.ceil(sum(leading * size for _, size, _ in lines)))), PAPER)
    draw = ImageDraw.Draw(block)
    top = 0.0
    for text, size, colour in lines:
        draw.text((0, round(top)), text, colour, font(size))
        top += leading * size
    return block
