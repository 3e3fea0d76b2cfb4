"""The README's memory table is what the formulas say."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from benchmarks import memory, sd35
from lib_hybridstitch.mmdit.config import MMDiTConfig


@pytest.mark.parametrize(("config", "billions"), [(sd35.LARGE, 8.1), (sd35.MEDIUM, 2.5), (sd35.SD3_MEDIUM, 2.1)])
def test_the_architectures_have_the_published_number_of_parameters(config: MMDiTConfig, billions: float) -> None:
    """8.1, 2.5 and 2 billion; of these last ones the table of positions is 0.06 beside."""
    assert round(sum(map(prod, config.expected_shapes().values())) / 1e9, 1) == billions


def test_the_readme_shows_the_table() -> None:
    assert memory.table() in (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_sd3_medium_needs_less_than_medium_and_is_faster() -> None:
    found = {name: memory.by_size(scale, (1024, 1536)) for name, scale in sd35.SMALL_MODELS.items()}
    newer, older = found["SD3.5-Medium"], found["SD3-medium"]
    for size in ("1024", "1536"):
        first, second = newer["operations"][size], older["operations"][size]
        assert second["small_of_large"] < first["small_of_large"]
        assert first["plan"] == second["plan"], "a plan does not depend on which small model there is"
        for name, speedup in first["speedup"].items():
            without = name.startswith(("Step cache", "RAS"))
            assert second["speedup"][name] == speedup if without else second["speedup"][name] > speedup, name
        saved = newer["memory"][size]["small_bf16"] - older["memory"][size]["small_bf16"]
        needs = [own["memory"][size]["plans"]["HybridStitch Balanced"]["bf16"] for own in (newer, older)]
        assert needs[0] - needs[1] == saved > 0
    lines = memory.small_models_table(found).splitlines()
    assert lines[0].startswith("| SD3.5-Medium / SD3-medium | full pass over a large one | HybridStitch Quality |")
    assert lines[2].startswith("| 1024² | 0.36 / 0.29 |") and len(lines) == 4
