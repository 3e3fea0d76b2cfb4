"""The comparison sheet: what is where, at which size and in which colour."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from hybridstitch_demo import sheet
from hybridstitch_demo.sheet import (
    Panel,
    SheetRow,
    StepEntry,
    comparison,
    duration,
    font,
    overlay,
    plain,
    tick,
    wrap,
)


def step(stage: str, ms: float, tokens: int = 64) -> StepEntry:
    return StepEntry(stage, sigma=0.5, tokens_large=tokens, tokens_total=64, ms=ms)


def row(panels: int = 2, caption: str = "frog on blue, seed 1", mask: bool = True) -> SheetRow:
    shown = tuple(Panel(f"Way {index}", "1.2 s", torch.full((3, 32, 32), 0.25 * index)) for index in range(panels))
    return SheetRow(caption, shown, torch.eye(4) if mask else None)


def pixels(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((numpy.asarray(image) == colour).all(-1).sum())


def test_bars_are_proportional_to_milliseconds() -> None:
    large = [step("large", 40) for _ in range(10)]
    hybrid = [step("large", 40), step("hybrid", 20, tokens=16), step("small", 100)]
    image = comparison([row(mask=False)], large, hybrid, "Headline")
    sizes = {stage: pixels(image, colour) for stage, colour in sheet.STAGE_COLOURS.items()}
    squares = 14 * 14  # of the legend
    assert (sizes["small"] - squares) / (100 * sheet.BAR) == pytest.approx(
        (sizes["large"] - squares) / (440 * sheet.BAR), rel=0.05
    )
    quarter = (sizes["hybrid"] - squares) / (20 * sheet.BAR)
    assert quarter == pytest.approx(0.25 * (sizes["small"] - squares) / (100 * sheet.BAR), rel=0.15)


def test_a_stage_that_did_not_happen_is_not_drawn() -> None:
    image = comparison([row(mask=False)], [], [step("large", 40)], "Headline")
    assert pixels(image, sheet.STAGE_COLOURS["large"]) > 0
    assert pixels(image, sheet.STAGE_COLOURS["small"]) == pixels(image, sheet.STAGE_COLOURS["hybrid"]) == 0


@pytest.mark.parametrize("rows", [1, 4])
def test_every_row_adds_its_pictures(rows: int) -> None:
    image = comparison([row() for _ in range(rows)], [step("large", 9)], [step("small", 3)], "Headline")
    assert pixels(image, (64, 64, 64)) >= rows * sheet.CELL**2
    assert image.width == 3 * sheet.CELL + 2 * sheet.GAP + 2 * sheet.MARGIN


@pytest.mark.parametrize(
    "words",
    [
        {"headline": "a headline without end " * 30},
        {"headline": "Headline", "note": "a note of many facts " * 40},
        {"headline": "Headline", "caption": "frog and red apple and " * 30},
        {"headline": "Headline", "caption": "unbreakable" * 60},
    ],
)
def test_long_words_wrap_and_stay_inside_the_margins(words: dict[str, str]) -> None:
    sample = row(caption=words.pop("caption", "frog"))
    image = comparison([sample], [step("large", 1000.0)], [step("hybrid", 1900.0)], **words)
    short = comparison([row(caption="frog")], [step("large", 1000.0)], [step("hybrid", 1900.0)], "Headline")
    canvas = numpy.asarray(image)
    assert image.height > short.height
    for edge in (
        canvas[: sheet.MARGIN],
        canvas[-sheet.MARGIN :],
        canvas[:, : sheet.MARGIN],
        canvas[:, -sheet.MARGIN :],
    ):
        assert (edge == sheet.PAPER).all()


def test_overlay_dims_what_was_never_refined_and_outlines_the_rest() -> None:
    mask = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    shown = numpy.asarray(overlay(torch.ones(3, 8, 8), mask, 80)).astype(int)
    assert shown[10, 10].tolist() == [255, 255, 255]
    assert 255 > shown[10, 70, 0] > shown[70, 10, 0]
    assert shown[70, 10].tolist() == shown[70, 70].tolist()
    assert (shown[38:43, 20] == sheet.STAGE_COLOURS["hybrid"]).all(-1).any()
    assert not (shown[20, 38:43] == sheet.STAGE_COLOURS["hybrid"]).all(-1).any(), "both sides were refined"


def test_broken_numbers_become_black_not_an_error() -> None:
    image = sheet.to_image(torch.full((3, 4, 6), float("nan")), 12)
    assert image.size == (12, 8)
    assert numpy.asarray(image).max() == 0


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0.25, "0.25 ms"), (8.46, "8.5 ms"), (850.0, "850 ms"), (1240.0, "1.24 s"), (75_000.0, "75.0 s")],
)
def test_duration(ms: float, words: str) -> None:
    assert duration(ms) == words


@pytest.mark.parametrize("longest", [0.07, 3.0, 480.0, 1190.0, 95_000.0])
def test_ticks_are_round_and_apart(longest: float) -> None:
    scale = 1000 / longest
    spacing = tick(longest, scale)
    assert f"{spacing:e}"[0] in "125"
    assert 100 <= spacing * scale <= 250


def test_wrap_keeps_every_word_within_the_width() -> None:
    chosen = font(16)
    lines = wrap("red apple and an " + "x" * 50 + " of a frog", chosen, 120)
    assert all(chosen.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == "redappleandan" + "x" * 50 + "ofafrog"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1.83× at σ 0.5, 128²", "1.83x at sigma 0.5, 128^2"),
        ("café – crème…", "cafe - creme…"),
        ("a  猫\n on blue", "a ? on blue"),
        ("frog · seed 1 · “quoted”", "frog · seed 1 · “quoted”"),
    ],
)
def test_characters_the_font_lacks_are_spelt_out(text: str, words: str) -> None:
    assert plain(text) == words
    assert wrap(text, font(16), 500) == [words]


def test_the_font_has_what_is_called_drawable() -> None:
    missing = bytes(font(30).getmask("猫"))
    assert not [letter for letter in sheet.DRAWABLE if bytes(font(30).getmask(letter)) == missing]


@pytest.mark.parametrize(
    ("rows", "steps", "reason"),
    [
        ([], [], "at least one row"),
        ([SheetRow("frog", ())], [], "at least one picture"),
        ([row()], [step("medium", 1.0)], "stage 'medium', expected one of large, hybrid, small"),
    ],
)
def test_useless_input_is_named(rows: list[SheetRow], steps: list[StepEntry], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        comparison(rows, [], steps, "Headline")
