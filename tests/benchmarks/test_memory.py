"""The README's memory table is what the formulas say."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from benchmarks import memory, sd35
from lib_hybridstitch.mmdit.config import MMDiTConfig


@pytest.mark.parametrize(("config", "billions"), [(sd35.LARGE, 8.1), (sd35.MEDIUM, 2.5)])
def test_the_architectures_have_the_published_number_of_parameters(config: MMDiTConfig, billions: float) -> None:
    """8.1 and 2.5 billion."""
    assert round(sum(map(prod, config.expected_shapes().values())) / 1e9, 1) == billions


def test_the_readme_shows_the_table() -> None:
    assert memory.table() in (Path(__file__).resolve().parents[2] / "README.md").read_text()
