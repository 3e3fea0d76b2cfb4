"""A wished speed-up becomes settings."""

from __future__ import annotations

from typing import Any

import pytest

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.plan import Plan, make_plan
from lib_hybridstitch.prediction.cost import Costs, StepCosts, forecast
from lib_hybridstitch.prediction.target import FAST_ENOUGH, aim, expected_distance
from lib_hybridstitch.settings import StitchSettings
from tests.plans.test_profile import shifted

LARGE = MMDiTConfig(38, 2, 16, 16, 4096, 2048, 192, True)
MEDIUM = MMDiTConfig(24, 2, 16, 16, 4096, 2048, 384, True, tuple(range(13)))
SIGMAS = shifted(28)


def costs_of(plan: Plan) -> Costs:
    return StepCosts.counted(LARGE, MEDIUM, plan, 4096, 333, 2)


def settings(target: float, **changes: Any) -> StitchSettings:
    return StitchSettings.from_dict({"target_speedup": target, "small_checkpoint": "m", **changes})


@pytest.mark.parametrize("target", [1.3, 1.5, 1.83, 2.0, 2.5, 3.0])
def test_a_target_is_reached_and_not_passed_by_more_than_a_step(target):
    aimed = aim(settings(target), SIGMAS, SIGMAS, costs_of)
    assert aimed.reached and aimed.settings.target_speedup == 0
    assert FAST_ENOUGH * target <= aimed.speedup <= target * 28 / (28 - target) + 0.1
    plan = make_plan(aimed.settings, SIGMAS)
    assert forecast(plan, SIGMAS, costs_of(plan)).speedup == aimed.speedup


@pytest.mark.parametrize(
    "changes",
    [{"preset": "Paper"}, {"preset": "Custom", "method": "T-Stitch"}, {"preset": "Custom", "method": "SRDiffusion"}],
)
def test_every_method_keeps_its_kind(changes):
    before = settings(1.4, **changes)
    aimed = aim(before, SIGMAS, SIGMAS, costs_of)
    assert aimed.reached
    assert (aimed.settings.method, aimed.settings.background) == (before.method, before.background)


def test_out_of_reach_gives_the_fastest_and_says_so():
    short = shifted(8)
    aimed = aim(settings(3.0), short, short, costs_of)
    assert not aimed.reached
    assert aimed.speedup == pytest.approx(8 / 4)  # both ends, the second step, and one in three: four of eight


def test_the_tail_of_img2img_is_what_counts():
    aimed = aim(settings(1.5), SIGMAS, SIGMAS[14:], costs_of)
    plan = make_plan(aimed.settings, SIGMAS)
    assert forecast(plan, SIGMAS[14:], costs_of(plan)).speedup >= FAST_ENOUGH * 1.5


def test_slower_plans_are_expected_nearer():
    distances = [
        expected_distance(make_plan(StitchSettings.from_dict({"full_share": share}), SIGMAS), SIGMAS)
        for share in (1.0, 0.7, 0.5, 0.4)
    ]
    assert distances[0] == 0.0
    assert distances == sorted(distances)


def test_late_small_steps_are_expected_nearer_than_early_ones():
    late, early = (
        make_plan(StitchSettings.from_dict({"preset": "Custom", "method": method, "switch_step": 0.5}), SIGMAS)
        for method in ("SRDiffusion", "T-Stitch")
    )
    assert expected_distance(late, SIGMAS) < expected_distance(early, SIGMAS)
