"""The picture of the comparison: what is where, at which size and in which colour."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from hybridstitch_demo.comparison import (
    BAR,
    COLOURS,
    DRAWABLE,
    GAP,
    LARGEST_CELL,
    MARGIN,
    PAPER,
    STUB,
    WIDTH,
    Cell,
    Chart,
    Column,
    Row,
    comparison,
    duration,
    font,
    overlay,
    plain,
    tick,
    to_image,
    wrap,
)
from lib_hybridstitch.plans.plan import Kind


def chart(*bars: tuple[Kind, float]) -> Chart:
    return Chart("Way", ["steps"], sum(ms for _, ms in bars), "2.00x", bars)


COLUMNS = (Column("Large model", "1.2 s"), Column("HybridStitch", "0.6 s"))
CHART = chart((Kind.LARGE, 9), (Kind.SMALL, 3))


def row(caption: str = "frog on blue, seed 1", mask: bool = False) -> Row:
    shown = [Cell(torch.full((3, 32, 32), 0.25), "LPIPS 0.1", torch.eye(4) if mask else None) for _ in COLUMNS]
    return Row(caption, tuple(shown))


def pixels(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((numpy.asarray(image) == colour).all(-1).sum())


def test_a_step_is_as_high_as_it_took_long_and_all_ways_have_one_scale() -> None:
    one = chart((Kind.LARGE, 40), (Kind.CFG_CACHED, 20), (Kind.EXTRAPOLATED, 0))
    other = chart((Kind.MASKED, 10), (Kind.SMALL, 30))
    image = comparison(COLUMNS, [row()], [one, other], "Headline")
    legend = 16 * 16
    sizes = {kind: pixels(image, COLOURS[kind]) - legend for kind in Kind}
    for kind, ms in ((Kind.CFG_CACHED, 20), (Kind.MASKED, 10), (Kind.SMALL, 30)):
        assert sizes[kind] / sizes[Kind.LARGE] == pytest.approx(ms / 40, rel=0.03)
    assert sizes[Kind.EXTRAPOLATED] / sizes[Kind.LARGE] == pytest.approx(STUB / BAR, rel=0.03)


def test_a_kind_that_did_not_happen_is_not_drawn() -> None:
    image = comparison(COLUMNS, [row()], [chart((Kind.LARGE, 40))], "Headline")
    drawn = [kind for kind in Kind if pixels(image, COLOURS[kind])]
    assert drawn == [Kind.LARGE]


@pytest.mark.parametrize("rows", [1, 4])
def test_every_row_adds_its_pictures(rows: int) -> None:
    image = comparison(COLUMNS, [row() for _ in range(rows)], [CHART], "Headline")
    assert pixels(image, (64, 64, 64)) >= rows * len(COLUMNS) * LARGEST_CELL**2
    assert image.width == WIDTH + 2 * MARGIN


def test_five_columns_fit() -> None:
    cell = Cell(torch.full((3, 32, 32), 0.25))
    image = comparison([Column("Way", "")] * 5, [Row("frog", (cell,) * 5)], [], "Headline")
    edge = (WIDTH - 4 * GAP) // 5
    assert pixels(image, (64, 64, 64)) == 5 * edge**2


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
    sample = row(caption=words.pop("caption", "frog"), mask=True)
    image = comparison(COLUMNS, [sample], [CHART], **words)
    short = comparison(COLUMNS, [row(caption="frog", mask=True)], [CHART], "Headline")
    canvas = numpy.asarray(image)
    assert image.height > short.height
    for edge in (
        canvas[:MARGIN],
        canvas[-MARGIN:],
        canvas[:, :MARGIN],
        canvas[:, -MARGIN:],
    ):
        assert (edge == PAPER).all()


def test_overlay_dims_what_was_never_refined_and_outlines_the_rest() -> None:
    mask = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    shown = numpy.asarray(overlay(torch.ones(3, 8, 8), mask, 80)).astype(int)
    assert shown[10, 10].tolist() == [255, 255, 255]
    assert 255 > shown[10, 70, 0] > shown[70, 10, 0]
    assert shown[70, 10].tolist() == shown[70, 70].tolist()
    assert (shown[38:43, 20] == COLOURS[Kind.MASKED]).all(-1).any()
    assert not (shown[20, 38:43] == COLOURS[Kind.MASKED]).all(-1).any(), "both sides were refined"


def test_broken_numbers_become_black_not_an_error() -> None:
    image = to_image(torch.full((3, 4, 6), float("nan")), 12)
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
    assert not [letter for letter in DRAWABLE if bytes(font(30).getmask(letter)) == missing]


@pytest.mark.parametrize("rows", [[], [Row("frog", ())]], ids=["no row", "a picture too few"])
def test_a_comparison_with_holes_is_refused(rows: list[Row]) -> None:
    with pytest.raises(ValueError, match="one picture for every column"):
        comparison(COLUMNS, rows, [CHART], "Headline")
