"""Tell which picture and stream each row of a model call belongs to, from what each host family lets one know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Row


def stream_of(part: int) -> str:
    """The stream of one of the prompts that AND joins; the first is plain "cond"."""
    return COND if part == 0 else f"{COND} {part + 1}"


class RowCursor:
    """A1111's rows: an evaluation announces all of them, then hands them out in order, in one call or in several."""

    def __init__(self) -> None:
        self._rest: list[Row] = []
        self._images = 1
        self._extra = 0

    def begin(self, parts: Sequence[int], uncond: int) -> None:
        """Note an evaluation.

        Args:
            parts: how many prompts each image has (more than one with AND).
            uncond: unconditional rows, one per image; the host may leave them out without saying so.
        """
        conds = [(image, stream_of(part)) for image, count in enumerate(parts) for part in range(count)]
        self._rest = [*conds, *((image, UNCOND) for image in range(uncond))]
        self._images, self._extra = max(len(parts), 1), 0

    def take(self, count: int) -> tuple[Row, ...]:
        """The rows of the next call; a call beyond what was announced gets streams of its own."""
        taken, self._rest = self._rest[:count], self._rest[count:]
        while len(taken) < count:
            taken.append((len(taken) % self._images, f"extra {self._extra}"))
            self._extra += 1
        return tuple(taken)


class ChunkLabels:
    """Forge's rows: a call lists its chunks, each a whole batch, as 0 (cond) or 1 (uncond), in varying order.

    The prompts of AND are told apart by their text, since their order depends on how a call was split.

    Args:
        parts: most prompts that one image has.
    """

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._known: list[tuple[Tensor, ...]] = []

    def of(
        self, chunks: Sequence[int], context: Tensor, pooled: Tensor, skipped: Sequence[int] = ()
    ) -> tuple[Row, ...]:
        """The rows of a call.

        Args:
            chunks: 0 or 1 per chunk of the batch.
            context, pooled: the call's text, (rows, L, width) and (rows, width).
            skipped: joint blocks that are left out, which makes it a stream of its own (skip-layer guidance).
        """
        images = pooled.shape[0] // len(chunks)
        note = f" without {','.join(map(str, skipped))}" if skipped else ""
        rows: list[Row] = []
        taken: set[int] = set()
        for index, kind in enumerate(chunks):
            part = slice(index * images, (index + 1) * images)
            stream = UNCOND if kind else stream_of(self._part(context[part], pooled[part], taken))
            rows.extend((image, stream + note) for image in range(images))
        return tuple(rows)

    def _part(self, context: Tensor, pooled: Tensor, taken: set[int]) -> int:
        if self._parts == 1:
            return 0
        free = [index for index in range(self._parts) if index not in taken]
        for index in free:
            if index < len(self._known) and _same(self._known[index], (context, pooled)):
                taken.add(index)
                return index
        if len(self._known) < self._parts:
            self._known.append((context, pooled))
            taken.add(len(self._known) - 1)
            return len(self._known) - 1
        index = free[0] if free else 0  # prompt editing changed the text
        self._known[index] = (context, pooled)
        taken.add(index)
        return index


def _same(known: tuple[Tensor, ...], text: tuple[Tensor, ...]) -> bool:
    return all(old.shape == new.shape and torch.equal(old, new) for old, new in zip(known, text, strict=True))
