"""The results as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

COLUMNS = 120


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def document(parts: Iterable[str]) -> str:
    """A page of paragraphs, prose among them wrapped at `COLUMNS`."""
    paragraphs = "\n\n".join(parts).split("\n\n")
    prose = (textwrap.fill(one, COLUMNS, break_long_words=False, break_on_hyphens=False) for one in paragraphs)
    return "\n\n".join(a if a.startswith(("|", "#", "- ")) else b for a, b in zip(paragraphs, prose)) + "\n"
