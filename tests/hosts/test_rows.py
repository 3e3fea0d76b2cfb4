"""Rows of a model call, labelled by picture and stream, for every call layout that was measured on the hosts."""

from __future__ import annotations

import pytest
import torch

from lib_hybridstitch.hosts.rows import ChunkLabels, RowCursor

TWO = [(0, "cond"), (1, "cond"), (0, "uncond"), (1, "uncond")]


def text(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Context (rows, 2, 4) and pooled (rows, 3), one value per row."""
    column = torch.tensor(values)
    return column[:, None, None].expand(-1, 2, 4), column[:, None].expand(-1, 3)


@pytest.mark.parametrize(
    ("parts", "calls", "expected"),
    [
        pytest.param([1, 1], [4], [TWO], id="one call, cond first"),
        pytest.param([1, 1], [2, 2], [TWO[:2], TWO[2:]], id="a call per half"),
        pytest.param([1, 1], [2], [TWO[:2]], id="no uncond rows"),
        pytest.param([2], [3], [[(0, "cond"), (0, "cond 2"), (0, "uncond")]], id="AND"),
        pytest.param(
            [2, 1],
            [5],
            [[(0, "cond"), (0, "cond 2"), (1, "cond"), (0, "uncond"), (1, "uncond")]],
            id="AND in one image",
        ),
        pytest.param([1], [2, 1], [[(0, "cond"), (0, "uncond")], [(0, "extra 0")]], id="a call nobody announced"),
    ],
)
def test_a1111_rows_come_in_the_announced_order(parts: list[int], calls: list[int], expected: list[object]) -> None:
    cursor = RowCursor()
    for _ in range(2):  # every evaluation alike
        cursor.begin(parts, len(parts))
        assert [list(cursor.take(count)) for count in calls] == expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([1, 0], ["uncond", "cond"], id="uncond first"),
        pytest.param([0], ["cond"], id="CFG 1"),
        pytest.param([1], ["uncond"], id="a call per chunk"),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_forge_chunks_are_whole_batches(chunks: list[int], expected: list[str], images: int) -> None:
    context, pooled = text(*range(images * len(chunks)))
    rows = ChunkLabels(1).of(chunks, context, pooled)
    assert rows == tuple((image, stream) for stream in expected for image in range(images))


def test_prompts_of_and_keep_their_names_in_any_order_and_split() -> None:
    labels = ChunkLabels(2)
    context, pooled = text(9.0, 1.0, 2.0)
    assert labels.of([1, 0, 0], context, pooled) == ((0, "uncond"), (0, "cond"), (0, "cond 2"))
    second, first = text(2.0), text(1.0)
    assert labels.of([0], *second) == ((0, "cond 2"),)
    assert labels.of([0], *first) == ((0, "cond"),)


def test_and_with_an_edited_prompt_names_two_streams_all_the_same() -> None:
    labels = ChunkLabels(2)
    labels.of([0, 0], *text(1.0, 2.0))
    rows = labels.of([0, 0], *text(1.0, 3.0))
    assert sorted(stream for _, stream in rows) == ["cond", "cond 2"]
    assert rows[0] == (0, "cond"), "the prompt that stayed keeps its name"


def test_skipped_layers_make_a_stream_of_their_own() -> None:
    labels = ChunkLabels(1)
    assert labels.of([0], *text(1.0), skipped=(7, 8)) == ((0, "cond without 7,8"),)
    assert labels.of([0], *text(1.0)) == ((0, "cond"),)
