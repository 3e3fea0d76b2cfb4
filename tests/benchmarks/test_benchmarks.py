"""The benchmarks run, and what they print can be read back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as entry
from benchmarks import overhead, prediction, race, trials
from benchmarks.contenders import CFG, OURS, STEPS, Contender, Settled, contenders
from benchmarks.drawers import Drawer, Drawing, NotRunError
from benchmarks.report import plot, report
from benchmarks.state import State, fingerprint
from hybridstitch_demo.generate import PROFILE, Pair, Request, load_pair, resolved
from hybridstitch_demo.scenes import held_out
from hybridstitch_demo.words import DRAWINGS, read
from lib_hybridstitch.plans.profile import Profile

TWO = race.Extent(scenes=2, rounds=1, batch=1)


class Absent:
    """A recipe for a drawer that cannot be made."""

    def drawer(self, pair: Pair) -> Drawer:
        """Refuse."""
        raise NotRunError("it is not installed.")


def all_obeyed(pictures: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    """A judge that is content with everything."""
    assert len(pictures) == len(prompts)
    return torch.ones(len(pictures), dtype=torch.bool)


def test_everybody_named_in_the_table_is_in_the_race_once() -> None:
    field = contenders()
    assert len({one.name for one in field}) == len(field)
    assert len({fingerprint(one.recipe, one.steps, one.sampler) for one in field}) == len(field)
    assert field[0].name == "large only, Euler, 28 steps"
    curves = {one.method for one in field}
    assert len([name for name in curves if name.startswith("fewer steps")]) == 4
    peers = {"First-Block-Cache", "TaylorSeer", "MagCache", "cache-dit DBCache", "T-Stitch", "SRDiffusion", "RAS"}
    assert {*peers, *OURS, "HybridStitch Paper", "large only, diffusers", "small only"} <= curves
    for method in OURS:
        assert {"Quality", "Balanced", "Fast"} < {one.setting for one in field if one.method == method}


def test_everybody_on_our_engine_has_a_plan_of_its_own_by_the_method_it_is_named_after() -> None:
    pair, request = load_pair(), Request(("pig on night",), (1,), STEPS, CFG)
    plans = {}
    for one in contenders():
        if isinstance(one.recipe, Settled):
            profile = Profile.read(PROFILE) if one.recipe.known else None
            found = resolved(pair, request, one.recipe.settings, profile)
            assert one.method.startswith(found.plan.method) and found.speedup > 1.1, one.name
            plans[one.name] = str(found.plan)
    assert len(set(plans.values())) == len(plans) > 15, plans


def test_the_quick_race_has_every_kind_of_curve() -> None:
    field = contenders()
    assert {one.method for one in field if one.quick} == {one.method for one in field}


def test_scenes_were_held_out_and_are_always_the_same() -> None:
    assert trials.scenes(5) == trials.scenes(5)
    prompts, seeds = trials.scenes(64)
    assert trials.scenes(3)[0] == prompts[:3]
    assert not set(seeds) & set(trials.scenes(64, race.SEED)[1])
    assert len(set(seeds)) == len(set(prompts)) == 64
    for prompt in prompts:
        names = read(prompt).names
        assert held_out([name for name in names if name in DRAWINGS], names[-1])


def test_a_race_of_two_and_one_who_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = [one for one in contenders() if one.name in ("large only, Euler, 28 steps", "small only, Euler, 28 steps")]
    field.append(Contender("absentee", "", Absent()))
    path = tmp_path / "state"
    found = race.race(load_pair(), field, TWO, State(path), "weights", all_obeyed)
    rows = found["rows"]
    assert rows[0]["lpips"] == 0 and rows[0]["speedup_flops"] == rows[0]["speedup_wall"] == 1 and rows[0]["psnr"] == 100
    assert rows[1]["lpips"] > 0.01 and rows[1]["speedup_flops"] > 2.5 and rows[1]["psnr"] < 40
    assert "Not run: absentee, : it is not installed." in capsys.readouterr().err
    text = report(race.settings(TWO, "weights"), found)
    assert "- absentee, : it is not installed." in text
    assert text.count("| small only |") == 1

    monkeypatch.setattr(race, "draw", None)
    monkeypatch.setattr(race, "scenes", None)
    assert race.race(load_pair(), field, TWO, State(path), "weights", all_obeyed) == found, "all of it from the state"


def test_the_state_outlives_an_interruption_unless_a_fresh_one_is_wanted(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.record_round("key", {"a": (5.0, 1.0)})
    state.record_round("key", {"a": (5.0, 2.0)})
    assert State(tmp_path / "state").rounds("key") == [{"a": (5.0, 1.0)}, {"a": (5.0, 2.0)}]
    assert State(tmp_path / "state").rounds("other") == []
    assert State(tmp_path / "state", fresh=True).rounds("key") == []


class Scripted:
    """A drawer whose times are known beforehand."""

    def __init__(self, *ms: float) -> None:
        self.ms = iter(ms)

    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Take the next time."""
        return Drawing(torch.zeros(1, 3, 8, 8), next(self.ms), None)


def test_a_ratio_is_to_the_two_runs_of_the_reference_that_frame_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slows down: the reference takes 100, 200 and 400 ms, the others 50 and 100."""
    monkeypatch.setattr(race, "BETWEEN", 1)
    field = contenders()[:3]
    order = [one.method for one in random.Random(7).sample(field[1:], 2)]
    took = dict(zip(order, (50.0, 100.0)))
    drawers = [Scripted(100, 200, 400), *(Scripted(took[one.method]) for one in field[1:])]
    calls: list[int] = []
    found = race.timed_round(list(zip(field, drawers)), ["pig on night"], [1], 7, lambda: calls.append(1))
    assert {name.split(", Euler")[0]: value for name, value in found.items()} == {
        "large only": (200, 1),
        order[0]: (50, 3),
        order[1]: (100, 3),
    }
    assert len(calls) == 5


def test_a_judge_is_asked_with_the_prompts_of_its_pictures() -> None:
    prompts, _ = trials.scenes(3, race.SEED)
    pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen: list[str] = []

    def judged(part: torch.Tensor, words: list[str]) -> torch.Tensor:
        seen.extend(words)
        return part.mean((1, 2, 3)) >= pictures[2].mean()

    drawn = race.score(pictures, pictures, 1.0, race.Extent(3, 1, 2), judged)
    assert seen == prompts
    assert drawn.obeyed[2] is True
    assert drawn.lpips == [0, 0, 0]


def test_the_plot_shows_every_method(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    row = {"setting": "Fast", "speedup_wall": 2.0, "speedup_flops": 2.0, "lpips": 0.1}
    rows = [{**row, "method": method} for method in ("peer", *OURS, "HybridStitch Paper")]
    assert plot(rows, tmp_path / "race.svg") == f"The plot is {tmp_path / 'race.svg'}."
    text = (tmp_path / "race.svg").read_text()
    assert all(f"<!-- {word} -->" in text for word in ("peer", *OURS, "HybridStitch Paper", "Fast"))


def test_overhead_measures_every_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overhead, "TOKENS", 64)
    assert entry.main(["overhead", "--rounds", "2", "--depth", "2", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "overhead.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert [row["ratio"] for row in found["partial_pass"]] == list(overhead.RATIOS)
    assert found["partial_pass"][-1]["of_full_counted"] == 1
    assert [row["step"] for row in found["bookkeeping"]] == list(overhead.STEPS)
    assert all(row["ms"] > 0 for row in found["bookkeeping"])
    assert all(row["bytes"] == row["formula"] for row in found["cache"])


def test_a_name_nobody_knows_is_the_races_own_mistake():
    with pytest.raises(SystemExit):
        entry.main(["nonsense"])


def test_what_is_measured_is_a_profile_as_the_extension_reads_it(tmp_path: Path) -> None:
    assert entry.main(["profile", "--pictures", "1", "--every", "20", "--name", "mine", "--out", str(tmp_path)]) == 0
    found = Profile.read(tmp_path / "profile.json")
    assert (found.name, found.checkpoint) == ("mine", Profile.read(PROFILE).checkpoint)
    assert len(found.sigmas) == len(found.change) == len(found.lasting) == 25, "every inner level"
    assert all(value > 0 for value in (*found.change, *found.lasting))
    assert json.loads((tmp_path / "profile.json").read_text())["measured"]["pictures"] == 1


def test_predictions_are_compared_with_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = prediction.Question("Step cache", (1.5,), {"computed_share": 0.8})
    monkeypatch.setattr(prediction, "QUESTIONS", (question,))
    monkeypatch.setattr(prediction, "STEPS", 12)
    assert prediction.main(["--quick", "--rounds", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "prediction.json").read_text())
    counted, measured = found["rows"]
    assert [row["by"] for row in found["rows"]] == ["counted", "measured"]
    assert found["counted"]["predictions"] == found["measured"]["predictions"] == 1
    assert counted["predicted"] >= 0.99 * 1.5 and "X" in counted["plan"]
    assert measured["predicted"] != counted["predicted"], "extrapolated steps take some time on this machine"
    assert all(row["off"] == pytest.approx(row["predicted"] / row["clock"] - 1, abs=0.002) for row in found["rows"])


def test_a_summary_of_predictions_counts_those_within_the_bar() -> None:
    rows = [{"by": "counted", "off": 0.3}, *({"by": "measured", "off": off} for off in (-0.2, 0.1, 0.02))]
    assert prediction.summary(rows, "measured") == {
        "predictions": 3,
        "within_bar": 2,
        "median_off": 0.1,
        "largest_off": 0.2,
    }
