"""Plans: stages over σ."""

from __future__ import annotations

import math

import pytest

from lib_hybridstitch.plans.plan import AdaptiveRule, Stage, boundary, make_plan, run_sigmas
from lib_hybridstitch.prediction.cost import StepCosts, forecast
from lib_hybridstitch.settings import PRESETS, StitchSettings

SIGMAS = tuple(1 - step / 10 for step in range(10))
KARRAS = tuple((1 + step / 9 * (0.003 ** (1 / 7) - 1)) ** 7 for step in range(10))
COSTS = StepCosts(large=100, partial=40, small=30, small_outside=20)


def settings(**changes: object) -> StitchSettings:
    base = {"preset": "Custom", "switch_step": 3, "handoff_step": 7, "background": "small", "refresh_every": 0}
    base["full_share"] = 0
    base |= {"score": "disagreement", "mask_ratio": 0.2}
    return StitchSettings.from_dict({**base, **changes})


def letters(plan, sigmas=SIGMAS) -> str:
    return "".join(plan.stage(sigma).value[0] for sigma in sigmas)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "lllhhhhsss"),
        ({"switch_step": 0}, "hhhhhhhsss"),
        ({"handoff_step": 0}, "lllhhhhhhh"),
        ({"switch_step": 0.3, "handoff_step": 0.7}, "lllhhhhsss"),
        ({"switch_step": 10, "handoff_step": 0}, "llllllllll"),
        ({"switch_step": 150, "handoff_step": 0}, "llllllllll"),
        ({"method": "T-Stitch"}, "ssslllllll"),
        ({"method": "SRDiffusion"}, "lllsssssss"),
        ({"method": "SRDiffusion", "switch_step": 0}, "ssssssssss"),
        ({"method": "RAS", "handoff_step": 0}, "lllhhhhhhh"),
    ],
)
@pytest.mark.parametrize("sigmas", [SIGMAS, KARRAS, (*SIGMAS, 0.0)])
def test_stages(changes, expected, sigmas):
    assert letters(make_plan(settings(**changes), sigmas), run_sigmas(sigmas)) == expected


def test_stages_mean_the_same_noise_in_img2img():
    plan = make_plan(settings(), SIGMAS)
    assert letters(plan, SIGMAS[5:]) == "hhsss"


def test_timesteps_passed_as_sigma_belong_to_the_large_model():
    plan = make_plan(settings(switch_step=0), SIGMAS)
    assert plan.stage(751.0) is Stage.LARGE
    assert plan.stage(math.nan) is Stage.LARGE
    assert plan.stage(1.0) is Stage.HYBRID


def test_boundaries_lie_half_way():
    assert boundary((1.0, 0.5, 0.0), 1) == 0.75
    assert boundary((1.0, 0.5, 0.0), 0) == math.inf
    assert boundary((1.0, 0.5, 0.0), 2) == -math.inf


@pytest.mark.parametrize(
    ("every", "full"),
    [(0, "1000000"), (1, "1111111"), (2, "1010101"), (3, "1001001")],
)
def test_refresh(every, full):
    plan = make_plan(settings(handoff_step=0, refresh_every=every), SIGMAS)
    assert "".join(str(int(step.full)) for step in plan.steps(SIGMAS)[3:]) == full


def test_there_is_no_probe_where_nothing_rests_on_it():
    plan = make_plan(settings(handoff_step=0, mask_ratio=0.0), SIGMAS)
    assert not any(step.full for step in plan.steps(SIGMAS)[3:])
    corrected = make_plan(settings(handoff_step=0, mask_ratio=0.0, refresh_every=4), SIGMAS)
    assert [step.full for step in corrected.steps(SIGMAS)[3:]] == [True, False, False, False, True, False, False]


def test_ras_recomputes_everything_at_its_resets():
    sigmas = tuple(1 - step / 28 for step in range(28))
    plan = make_plan(settings(method="RAS", switch_step=4, handoff_step=0, mask_ratio=0.5), sigmas)
    assert [index for index, step in enumerate(plan.steps(sigmas)) if step.full] == [0, 1, 2, 3, 4, 12, 20]


@pytest.mark.parametrize(
    ("changes", "small"),
    [
        ({}, True),
        ({"handoff_step": 0}, True),
        ({"handoff_step": 0, "background": "reuse", "score": "detail"}, False),
        ({"handoff_step": 0, "background": "reuse", "score": "disagreement"}, True),
        ({"handoff_step": 0, "background": "small", "mask_ratio": 1.0}, False),
        ({"method": "RAS", "handoff_step": 0}, False),
        ({"method": "T-Stitch"}, True),
    ],
)
def test_whether_a_small_model_is_needed(changes, small):
    assert make_plan(settings(**changes), SIGMAS).needs_small is small


@pytest.mark.parametrize(
    ("before", "now", "settled"), [(0.5, 0.495, True), (0.5, 0.48, False), (0.5, 0.5, False), (0.4, 0.5, False)]
)
def test_adaptive_rule(before, now, settled):
    assert AdaptiveRule(earliest=0.8).settled(before, now) is settled


def test_forecast_adds_up():
    plan = make_plan(settings(), SIGMAS)
    told = forecast(plan, SIGMAS, COSTS)
    # 3 large, a probe of both models, 3 masked steps with the small model beside them, 3 small.
    by_hand = 3 * 100 + (100 + 30) + 3 * (40 + 30) + 3 * 30
    assert told.speedup == pytest.approx(10 * 100 / by_hand)
    assert told.summary == "10 steps · 3 large · 4 hybrid at 20% (1 of them full) · 3 small · about 1.4x"
    assert told.advice == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"switch_step": 10, "handoff_step": 0}, "switch_step"),
        ({"switch_step": 10, "method": "T-Stitch"}, None),
        ({"switch_step": 0, "method": "T-Stitch"}, "raise switch_step"),
        ({"switch_step": 1, "handoff_step": 0, "refresh_every": 1}, "refresh_every"),
        ({"switch_step": 1, "handoff_step": 0, "mask_ratio": 0.9}, "mask_ratio"),
    ],
)
def test_a_plan_that_gains_nothing_says_what_to_change(changes, word):
    costs = StepCosts(large=100, partial=95, small=30, small_outside=20)
    advice = forecast(make_plan(settings(**changes), SIGMAS), SIGMAS, costs).advice
    assert (word in advice) if word else advice == ""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_plan_that_gains(name):
    sigmas = tuple(1 - step / 28 for step in range(28))
    plan = make_plan(StitchSettings.from_dict({"preset": name}), sigmas)
    assert forecast(plan, sigmas, COSTS).speedup > 1.2
