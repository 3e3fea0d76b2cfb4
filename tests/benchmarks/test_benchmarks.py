"""The benchmarks run, and what they print can be read back."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import __main__ as entry
from benchmarks import overhead, race
from lib_hybridstitch.demo.generate import load_pair


def test_everybody_named_in_the_table_is_in_the_race_once():
    field = race.contenders()
    assert len({(one.method, one.setting) for one in field}) == len(field)
    methods = {one.method for one in field}
    assert methods == {"large only", "small only", "fewer steps", "T-Stitch", "SRDiffusion", "RAS"} | {
        f"HybridStitch {preset}" for preset in ("Paper", "Quality", "Balanced", "Fast")
    }


def test_scenes_are_always_the_same():
    assert race.scenes(5) == race.scenes(5)
    assert race.scenes(3)[0] == race.scenes(5)[0][:3]
    assert len(set(race.scenes(64)[1])) == 64


def test_interval_holds_the_mean_and_shrinks_with_agreement():
    low, high = race.interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert 1 <= low < 2.5 < high <= 4
    assert race.interval(torch.ones(9)) == (1.0, 1.0)


def test_a_race_of_two():
    field = [one for one in race.contenders() if one.method in ("large only", "small only")]
    rows = list(race.race(load_pair(), field, count=2, rounds=2))
    assert rows[0]["lpips"] == 0 and rows[0]["speedup_flops"] == 1 and rows[0]["psnr"] == 100
    assert rows[1]["lpips"] > 0.01 and rows[1]["speedup_flops"] > 2.5 and rows[1]["psnr"] < 40
    assert race.table(rows).count("\n") == 3


def test_overhead_measures_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overhead, "TOKENS", 64)
    assert entry.main(["overhead", "--rounds", "2", "--depth", "2", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "overhead.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert [row["ratio"] for row in found["partial_pass"]] == list(overhead.RATIOS)
    assert found["partial_pass"][-1]["of_full_counted"] == 1
    assert all(row["ms"] > 0 for row in found["bookkeeping"])
    assert all(row["bytes"] == row["formula"] for row in found["cache"])


def test_a_name_nobody_knows_is_the_races_own_mistake():
    with pytest.raises(SystemExit):
        entry.main(["nonsense"])
