"""The picture `comparison.png`: what each way of sampling made, where the large model worked, where the time went."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

STAGES: tuple[str, ...] = ("large", "hybrid", "small")
STAGE_COLOURS: dict[str, Colour] = {"large": (0, 114, 178), "hybrid": (230, 159, 0), "small": (0, 158, 115)}
"""Distinguishable without full colour vision: Okabe and Ito, "Color Universal Design", 2008."""

PAPER: Colour = (250, 250, 248)
INK: Colour = (28, 32, 40)
GREY: Colour = (108, 114, 124)
RULE: Colour = (222, 223, 221)
SHADE: Colour = (24, 28, 40)

SUBSTITUTES = str.maketrans(
    {"×": "x", "σ": "sigma", "→": "->", "–": "-", "—": "-", "≈": "about ", "²": "^2", "³": "^3"}
)
DRAWABLE = frozenset("·…‘’“”±°").union(map(chr, range(32, 127)))
"""What Pillow's own font has and this sheet uses."""

MARGIN = 40
GAP = 24
CELL = 352
NARROWEST = 880
BAR = 34
LABEL = 128
VALUE = 178


@dataclass(frozen=True)
class Panel:
    """One picture with its words.

    Args:
        title: how it was made.
        subtitle: numbers that belong to it.
        picture: RGB (3, H, W) in 0..1.
    """

    title: str
    subtitle: str
    picture: Tensor


@dataclass(frozen=True)
class SheetRow:
    """One sample: the same prompt and seed, sampled in several ways.

    Args:
        caption: the prompt and the seed.
        panels: the pictures, left to right.
        mask: how often the large model computed a token during the hybrid stage, (h, w) in 0..1, or None.
        masked: index of the panel whose picture lies below the mask.
    """

    caption: str
    panels: tuple[Panel, ...]
    mask: Tensor | None = None
    masked: int = -1


@dataclass(frozen=True)
class StepEntry:
    """One sampling step as it happened.

    Args:
        stage: "large", "hybrid" or "small".
        sigma: noise level at which the step began, 1 → 0.
        tokens_large: tokens which the large model computed.
        tokens_total: tokens there are.
        ms: milliseconds it took.
    """

    stage: str
    sigma: float
    tokens_large: int
    tokens_total: int
    ms: float


def comparison(
    rows: Sequence[SheetRow],
    large_steps: Sequence[StepEntry],
    hybrid_steps: Sequence[StepEntry],
    headline: str,
    note: str = "",
) -> Image.Image:
    """Draw the sheet.

    Args:
        rows: the samples, one below the other.
        large_steps: steps of the run by the large model alone, or none.
        hybrid_steps: steps of the stitched run.
        headline: the one sentence to remember.
        note: what a reader must know to judge the numbers (sizes, steps, machine).

    Raises:
        ValueError: when there are no rows, a row has no pictures, or a stage is unknown.
    """
    if not rows or not all(row.panels for row in rows):
        raise ValueError("a sheet needs at least one row, and every row at least one picture")
    for step in (*large_steps, *hybrid_steps):
        if step.stage not in STAGES:
            raise ValueError(f"a step has the stage {step.stage!r}, expected one of {', '.join(STAGES)}")
    columns = max(len(row.panels) + (row.mask is not None) for row in rows)
    width = max(NARROWEST, columns * CELL + (columns - 1) * GAP)
    blocks = [_header(headline, note, width)]
    blocks += [_row(row, width) for row in rows]
    if hybrid_steps:
        blocks.append(_timeline(large_steps, hybrid_steps, width))
    height = sum(block.height for block in blocks) + GAP * (len(blocks) - 1)
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    top = MARGIN
    for block in blocks:
        sheet.paste(block, (MARGIN, top))
        top += block.height + GAP
    return sheet


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
        mask: share of hybrid steps in which the large model computed the token, (h, w) in 0..1.
        width: of the result in pixels.
    """
    image = to_image(picture, width)
    share = mask.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    strength = torch.where(share > 0, 0.30 * (1 - share), torch.full_like(share, 0.72))
    alpha = Image.fromarray(numpy.ascontiguousarray((255 * strength).round().to(torch.uint8).numpy()))
    shade = Image.new("RGB", image.size, SHADE)
    image.paste(shade, mask=alpha.resize(image.size, Image.Resampling.NEAREST))
    _outline(ImageDraw.Draw(image), share > 0, image.size)
    return image


def _outline(draw: ImageDraw.ImageDraw, refined: Tensor, size: tuple[int, int]) -> None:
    """Draw a thin line between tokens that were refined (h, w) and tokens that never were."""
    height, width = refined.shape
    xs = [round(column * size[0] / width) for column in range(width + 1)]
    ys = [round(row * size[1] / height) for row in range(height + 1)]
    colour = STAGE_COLOURS["hybrid"]
    for row, column in (refined[:, 1:] != refined[:, :-1]).nonzero().tolist():
        draw.line([(xs[column + 1], ys[row]), (xs[column + 1], ys[row + 1])], colour, 2)
    for row, column in (refined[1:] != refined[:-1]).nonzero().tolist():
        draw.line([(xs[column], ys[row + 1]), (xs[column + 1], ys[row + 1])], colour, 2)


def _header(headline: str, note: str, width: int) -> Image.Image:
    lines = [(line, 30, INK) for line in wrap(headline, font(30), width)]
    if note:
        lines += [("", 6, GREY)] + [(line, 16, GREY) for line in wrap(note, font(16), width)]
    return _text_block(lines, width)


def _row(row: SheetRow, width: int) -> Image.Image:
    panels = [(panel.title, panel.subtitle, to_image(panel.picture, CELL)) for panel in row.panels]
    if row.mask is not None:
        share = 100 * float(row.mask.float().mean())
        shown = overlay(row.panels[row.masked].picture, row.mask, CELL)
        panels.append(("Refined by the large model", f"{share:.0f} % of the tokens, on average", shown))
    caption = _text_block([(line, 18, INK) for line in wrap(row.caption, font(18), width)], width)
    words = [
        _text_block(
            [(line, 17, INK) for line in wrap(title, font(17), CELL)]
            + [(line, 14, GREY) for line in (wrap(subtitle, font(14), CELL) if subtitle else [])],
            CELL,
        )
        for title, subtitle, _ in panels
    ]
    pictures_top = 1 + 18 + caption.height + 14
    words_top = pictures_top + max(image.height for _, _, image in panels) + 10
    block = Image.new("RGB", (width, words_top + max(word.height for word in words)), PAPER)
    draw = ImageDraw.Draw(block)
    draw.line([(0, 0), (width, 0)], RULE, 1)
    block.paste(caption, (0, 19))
    for index, (word, (_, _, image)) in enumerate(zip(words, panels)):
        left = index * (CELL + GAP)
        block.paste(image, (left, pictures_top))
        block.paste(word, (left, words_top))
    return block


def _timeline(large_steps: Sequence[StepEntry], hybrid_steps: Sequence[StepEntry], width: int) -> Image.Image:
    """Two bars to one time scale, a scale below them, and a legend with what each stage took."""
    large_ms, hybrid_ms = (sum(step.ms for step in steps) for steps in (large_steps, hybrid_steps))
    longest = max(large_ms, hybrid_ms) or 1.0
    scale = (width - LABEL - VALUE) / longest
    bars = [("Large only", large_steps)] if large_steps else []
    bars.append(("HybridStitch", hybrid_steps))
    legend = _legend(hybrid_steps, width)
    first = 19 + 44
    axis = first + len(bars) * (BAR + 12)
    block = Image.new("RGB", (width, axis + 40 + legend.height), PAPER)
    draw = ImageDraw.Draw(block)
    draw.line([(0, 0), (width, 0)], RULE, 1)
    draw.text((0, 19), "Where the time goes, step by step", INK, font(18))
    _axis(draw, axis, longest, scale)
    for index, (label, steps) in enumerate(bars):
        top = first + index * (BAR + 12)
        draw.text((0, top + BAR // 2), label, INK, font(16), anchor="lm")
        end = _bar(draw, steps, top, scale)
        value = duration(sum(step.ms for step in steps))
        draw.text((end + 12, top + BAR // 2), value, INK, font(16), anchor="lm")
    if large_ms and hybrid_ms:
        left = end + 12 + font(16).getlength(value) + 14
        draw.text((left, top + BAR // 2), f"{large_ms / hybrid_ms:.2f}x", INK, font(24), anchor="lm")
    block.paste(legend, (0, axis + 40))
    return block


def _bar(draw: ImageDraw.ImageDraw, steps: Sequence[StepEntry], top: int, scale: float) -> int:
    """Draw one bar and return where it ends; in hybrid steps the filled height is the large model's share of tokens."""
    at = 0.0
    end = LABEL
    for step in steps:
        left, end = LABEL + round(at * scale), LABEL + round((at + step.ms) * scale)
        at += step.ms
        right = end - 2 if end - left > 3 else end - 1  # a hair of paper between steps, where there is room
        if right < left:
            continue
        colour = STAGE_COLOURS[step.stage]
        if step.stage == "hybrid":
            share = step.tokens_large / max(step.tokens_total, 1)
            draw.rectangle([left, top, right, top + BAR - 1], _lighter(colour, 0.68))
            if share > 0:
                draw.rectangle([left, top + round((BAR - 1) * (1 - share)), right, top + BAR - 1], colour)
        else:
            draw.rectangle([left, top, right, top + BAR - 1], colour)
    return end


def _axis(draw: ImageDraw.ImageDraw, top: int, longest: float, scale: float) -> None:
    """Draw ticks of a round number of milliseconds."""
    step = tick(longest, scale)
    for index in range(math.floor(longest / step + 1e-9) + 1):
        x = LABEL + round(index * step * scale)
        draw.line([(x, top - 6), (x, top)], GREY, 1)
        draw.text((x, top + 4), f"{index * step:g} ms" if index else "0", GREY, font(13), anchor="ma")


def tick(longest: float, scale: float, apart: float = 100.0) -> float:
    """Return the smallest of 1, 2, 5 · 10ⁿ milliseconds that puts ticks at least `apart` pixels apart.

    Args:
        longest: milliseconds shown.
        scale: pixels per millisecond.
        apart: pixels.
    """
    power = 10.0 ** math.floor(math.log10(min(apart / scale, longest)))
    return next((factor * power for factor in (1, 2, 5) if factor * power * scale >= apart), 10 * power)


def _legend(steps: Sequence[StepEntry], width: int) -> Image.Image:
    block = Image.new("RGB", (width, 3 * 24), PAPER)
    draw = ImageDraw.Draw(block)
    line = 0
    for stage in STAGES:
        chosen = [step for step in steps if step.stage == stage]
        if not chosen:
            continue
        top = 24 * line
        draw.rectangle([LABEL, top + 4, LABEL + 13, top + 17], STAGE_COLOURS[stage])
        draw.text((LABEL + 24, top + 11), _stage_words(stage, chosen), GREY, font(14), anchor="lm")
        line += 1
    return block.crop((0, 0, width, 24 * line))


def _stage_words(stage: str, steps: Sequence[StepEntry]) -> str:
    count = f"{len(steps)} step" + ("s" if len(steps) > 1 else "")
    total = sum(step.ms for step in steps)
    words = f"{stage}: {count}, {duration(total)}, from sigma {steps[0].sigma:.2f}"
    if stage == "hybrid":
        share = sum(step.tokens_large for step in steps) / max(sum(step.tokens_total for step in steps), 1)
        words += f"; the large model computes {100 * share:.0f} % of the tokens (filled height)"
    return words


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


def _lighter(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(c + (p - c) * share) for c, p in zip(colour, PAPER))
    return red, green, blue
