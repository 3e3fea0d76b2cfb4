"""The matrix: its cells are balanced, its passes are a WebUI's, and two tiny cells go through all of it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as entry
from benchmarks import matrix
from benchmarks.matrix_cells import (
    GUIDANCES,
    HIRES,
    IMG2IMG,
    INPAINTING,
    SAMPLERS,
    SHIFTS,
    STEPS,
    TXT2IMG,
    Cell,
    cells,
    schedule,
    spread,
)
from benchmarks.matrix_report import difference, report
from benchmarks.passes import Start, euler_ancestral, sample
from hybridstitch_demo.generate import Pair, Request, generate, load_pair
from hybridstitch_demo.scenes import held_out
from hybridstitch_demo.words import DRAWINGS, read
from lib_hybridstitch.hosts import shared

KEYS = "steps guidance sampler shift kind strength size method preset speedup_flops lpips lpips_fewer_steps n".split()
EDGE = 8
CLEAN = 0.5


def cell(steps: int = 8, sampler: str = "Euler", kind: str = TXT2IMG, strength: float = 1.0, cfg: float = 1.0) -> Cell:
    """A tiny cell."""
    return Cell(steps, cfg, sampler, 3.0, kind, strength, 64)


def end(pair: Pair, of: Cell, start: Start | None = None, computed: tuple[int, ...] | None = None) -> Tensor:
    """Latents of one picture, by the large model alone."""
    request = Request(("pig on night",), (5,), cfg=of.guidance, size=of.size)
    begin = start or Start(torch.zeros(1, 16, EDGE, EDGE))
    way = matrix.large_only(of.levels())
    return sample(pair, request, of.sampler, way.plan, way.levels, begin, computed)[0]


def test_every_value_of_a_factor_occurs_often_and_so_do_pairs() -> None:
    found = spread()
    assert found == spread() and len(found) >= 60 and len(cells()) == len(set(cells())) > 70
    wanted = {"steps": STEPS, "guidance": GUIDANCES, "sampler": SAMPLERS, "shift": SHIFTS}
    for factor, values in wanted.items():
        counts = Counter(getattr(one, factor) for one in found)
        assert set(counts.values()) == {len(found) // len(values)}, factor
    for first, second in itertools.combinations(wanted, 2):
        pairs = Counter((getattr(one, first), getattr(one, second)) for one in found)
        assert len(pairs) == len(wanted[first]) * len(wanted[second]), (first, second)
    assert {(one.kind, one.sampler) for one in found} == set(
        itertools.product((TXT2IMG, IMG2IMG, INPAINTING, HIRES), SAMPLERS)
    )
    assert len({one.name for one in cells()}) == len(cells())


def test_a_pass_from_a_picture_samples_what_the_webui_samples() -> None:
    assert cell(20).levels() == schedule(20, 3.0) and schedule(4, 3.0)[0] == 1 and schedule(4, 3.0)[-1] == 0
    assert cell(20, kind=IMG2IMG, strength=0.5).levels() == schedule(20, 3.0)[9:], "eleven steps, as A1111 counts"
    assert len(cell(8, kind=IMG2IMG, strength=0.3).levels()) == 4
    assert cell(8, kind=HIRES, strength=0.5).levels() == schedule(16, 3.0)[8:]


@pytest.mark.parametrize("kind", [(TXT2IMG, 1.0), (IMG2IMG, 0.3), (INPAINTING, 0.75), (HIRES, 0.5)])
def test_fewer_steps_are_no_more_than_may_be_and_begin_where_the_cell_does(kind: tuple[str, float]) -> None:
    one = cell(20, kind=kind[0], strength=kind[1])
    for most in range(1, len(one.levels())):
        found = one.fewer(most)
        assert 1 < len(found) <= most + 1 and found[-1] == 0
        assert most < 3 or found[0] == pytest.approx(one.levels()[0], abs=0.09)
    assert one.fewer(len(one.levels()) - 1)[0] == one.levels()[0]


def test_ancestral_euler_keeps_to_the_flows_noise_levels() -> None:
    """With a model that knows the picture, x at every level is (1 − σ) of the picture and σ of noise."""
    source = torch.Generator().manual_seed(1)
    sigmas = torch.tensor(schedule(6, 3.0))
    seen: list[tuple[float, Tensor]] = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((float(sigma[0]), x))
        return torch.full_like(x, CLEAN)

    last = euler_ancestral(model, torch.randn(1, 10**5, generator=source), sigmas, lambda: torch.randn(1, 10**5))
    assert len(seen) == 6 and torch.allclose(last, torch.tensor(CLEAN))
    for sigma, x in seen:
        assert float(x.mean()) == pytest.approx((1 - sigma) * CLEAN, abs=0.02)
        assert float(x.std()) == pytest.approx(sigma, abs=0.02)


def test_a_pass_from_noise_is_the_demos_own() -> None:
    pair = load_pair()
    request = Request(("pig on night",), (5,), steps=6, cfg=3.0, size=64)
    assert torch.allclose(end(pair, cell(6, cfg=3.0)), generate(pair, request).latents, atol=1e-4)


def test_steps_that_are_held_are_straight_ways_between_the_others() -> None:
    pair, of, chosen = load_pair(), cell(6), (0, 1, 3, 5)
    levels = (*(of.levels()[step] for step in chosen), 0.0)
    request = Request(("pig on night",), (5,), cfg=1.0, size=64)
    start = Start(torch.zeros(1, 16, EDGE, EDGE))
    direct, report = sample(pair, request, "Euler", matrix.large_only(levels).plan, levels, start)
    assert len(report.evaluations()) == 4
    assert torch.allclose(end(pair, of, computed=chosen), direct, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_leaves_the_rest_as_it_is(sampler: str) -> None:
    paint = torch.zeros(EDGE, EDGE)
    paint[:, 4:] = 1
    source = torch.randn(1, 16, EDGE, EDGE, generator=torch.Generator().manual_seed(2))
    start = Start(source, paint)
    found = end(load_pair(), cell(6, sampler, INPAINTING, 0.5), start)
    assert torch.allclose(found[..., :4], source[..., :4], atol=1e-4)
    assert float((found - source)[..., 4:].abs().mean()) > 0.1
    host = shared._region(paint[None], (1, 16, EDGE, EDGE))
    region = start.region(2)
    assert host is not None and region is not None and torch.equal(region, host)


def test_prompts_were_held_out_and_sources_are_of_others() -> None:
    found = matrix.prompts(16)
    assert found[:8] == matrix.prompts(8) and len(set(found)) == 16
    for prompt in found:
        names = read(prompt).names
        assert held_out([name for name in names if name in DRAWINGS], names[-1])


def test_two_cells_go_through_all_of_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = [cell(12, cfg=4.5), cell(8, "Euler a", INPAINTING, 0.75, 4.5)]
    monkeypatch.setattr(matrix, "cells", lambda: tiny)
    monkeypatch.setattr(matrix, "SOURCE_STEPS", 3)
    options = ["matrix", "--scenes", "2", "--out", str(tmp_path)]
    assert entry.main(options) == 0
    rows = json.loads((tmp_path / "matrix.json").read_text())
    assert len(rows) == 2 * 7
    for row in rows:
        assert list(row)[: len(KEYS)] == KEYS and row["n"] == 2 and row["speedup_flops"] >= 1
        assert row["lpips_low"] <= round(difference(row), 4) + 1e-4 and row["lpips"] >= 0
    assert max(row["speedup_flops"] for row in rows) > 1.2
    text = (tmp_path / "matrix.md").read_text()
    assert text in capsys.readouterr().out and tiny[1].name in text

    monkeypatch.setattr(matrix.Bench, "_draw", None)
    assert entry.main([*options, "--only", "txt2img", "12 steps"]) == 0
    assert json.loads((tmp_path / "matrix.json").read_text()) == rows[:7], "all of it from the state"


def test_what_no_cell_is_called_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["matrix", "--only", "img3img"])
    assert "no cell has 'img3img' in its name" in capsys.readouterr().err


def test_the_table_names_the_rows_that_are_farther() -> None:
    row = dict(zip(KEYS, (20, 4.5, "Euler", 3.0, IMG2IMG, 0.5, 128, "Step cache", "Fast", 2.0, 0.01, 0.004, 8)))
    near = {**row, "preset": "Quality", "lpips": 0.004}
    rows = [{**one, "plan": "2L X L", "lpips_low": 0.001, "lpips_high": 0.011} for one in (row, near)]
    text = report(matrix.settings(8, "w", 0.0), rows)
    assert "1 of 2 rows" in text and "| +0.0060 (+0.0010 to +0.0110) | `2L X L` |" in text
    assert "**2.00x 0.0100 / 0.0040** | 2.00x 0.0040 / 0.0040 |" in text
