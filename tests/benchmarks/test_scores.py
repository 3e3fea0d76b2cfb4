"""Numbers of the race that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.report import comparison_table, peer_table
from benchmarks.scores import Drawn, Outcome, at_speed, beside_ours, compare, interval, nearest_peers, quartiles, row

SCENES = 20


def outcome(method: str, speed: float, lpips: float, counted: float | None = None, setting: str = "") -> Outcome:
    """A contender with distances around `lpips` that differ from scene to scene as everybody's do."""
    far = [lpips + 0.001 * scene for scene in range(SCENES)]
    drawn = Drawn(far, [30.0] * SCENES, [0.9] * SCENES, [True] * 15 + [False] * 5, 1.0)
    return Outcome(method, setting, method == "HybridStitch", drawn, [100.0], [speed], counted or speed)


def test_interval_holds_the_mean_and_shrinks_with_agreement() -> None:
    low, high = interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert 1 <= low < 2.5 < high <= 4
    assert interval(torch.ones(9)) == (1.0, 1.0)


def test_quartiles() -> None:
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 4.0)
    assert quartiles([2.0]) == (2.0, 2.0)


def test_a_row_says_what_was_measured() -> None:
    one = Outcome("a", "b", False, outcome("a", 1, 0.1).drawn, [30.0, 10.0, 20.0], [1.0, 3.0, 2.0], 2.5)
    found = row(one)
    assert (found["ms"], found["speedup_wall"], found["speedup_flops"]) == (20, 2, 2.5)
    assert found["speedup_wall_quartiles"] == [1.5, 2.5]
    assert found["lpips_low"] < found["lpips"] == 0.1095 < found["lpips_high"]
    assert (found["obeyed"], found["n"]) == (0.75, SCENES)


def test_a_curve_is_interpolated_scene_by_scene_from_the_reference_on() -> None:
    curve = [(3.0, torch.tensor([0.4, 0.8])), (2.0, torch.tensor([0.2, 0.0]))]
    assert at_speed(curve, 2.5) == pytest.approx(torch.tensor([0.3, 0.4]))
    assert at_speed(curve, 1.5) == pytest.approx(torch.tensor([0.1, 0.0]))
    assert at_speed(curve, 3.0) == pytest.approx(torch.tensor([0.4, 0.8]))
    assert at_speed(curve, 3.01) is None
    assert at_speed(curve, 0.99) is None


@pytest.mark.parametrize(("lpips", "verdict"), [(0.05, "nearer"), (0.15, "further")])
def test_who_is_nearer_at_equal_speed(lpips: float, verdict: str) -> None:
    """The peer is at 0.1095 for 2x; a paired bootstrap is sure, as all scenes differ by the same."""
    peer = outcome("peer", 2, 0.1)
    [found] = [one for one in compare([outcome("HybridStitch", 2, lpips), peer]) if one.axis == "wall"]
    assert (found.verdict, found.peer_lpips) == (verdict, 0.1095)
    assert found.low == found.high == pytest.approx(lpips - 0.1, abs=1e-4)


def test_equal_curves_are_level_and_the_speeds_are_kept_apart() -> None:
    both = compare([outcome("HybridStitch", 2, 0.1, counted=4), outcome("peer", 2, 0.1, counted=3)])
    assert {one.axis: one.verdict for one in both} == {"wall": "level", "counted": "not reached"}


def test_the_table_names_the_best_peer_that_reaches_the_speed() -> None:
    field = [outcome("large only", 1, 0), outcome("HybridStitch", 2, 0.2, setting="Fast")]
    field += [outcome("good", 2, 0.1), outcome("bad", 2, 0.3), outcome("slow", 1.5, 0.01)]
    found = compare(field)
    assert {one.peer for one in found} == {"good", "bad", "slow"}, "the reference is nobody's rival"
    assert {one.peer for one in nearest_peers(found)} == {"good"}
    line = comparison_table(found).splitlines()[2]
    assert "| good | 0.110 | +0.1000 (+0.1000 to +0.1000) | further | further 1, nearer 1, not reached 1 |" in line


def test_each_peer_stands_beside_our_curve_at_its_own_speed() -> None:
    field = [outcome("large only", 1, 0), outcome("HybridStitch", 2, 0.2, setting="Fast")]
    field += [outcome("good", 2, 0.1), outcome("bad", 2, 0.3), outcome("fast", 2.5, 0.01)]
    found = {one["peer"]: one for one in beside_ours(field)}
    assert {name: one["verdict"] for name, one in found.items()} == {"good": "further", "bad": "nearer"}
    assert found["bad"]["ours"] == "HybridStitch" and found["bad"]["low"] == pytest.approx(-0.1, abs=1e-4)
    assert "| bad |  | 2.00x | 0.3095 | HybridStitch | 0.2095 | -0.1000" in peer_table(list(found.values()))
