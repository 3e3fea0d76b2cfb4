"""The lists that the methods write, by hand; and what holds for every preset at every number of steps."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest

from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.method import Method, Run, cautious_index, step_index
from lib_hybridstitch.plans.methods import METHODS
from lib_hybridstitch.plans.plan import GENERIC, Kind
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.plans.ras import RAS
from lib_hybridstitch.plans.safety import ANCESTRAL, BEGINNING, FEW_STEPS, secured
from lib_hybridstitch.plans.srdiffusion import SRDiffusion
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.plans.t_stitch import TStitch
from tests.plans.schedules import kinds, longest_row, shifted

PRESETS = [(method, name) for method in METHODS for name in (*method.presets, "")]
each_preset = pytest.mark.parametrize(("method", "preset"), PRESETS, ids=[f"{m.name} {name}" for m, name in PRESETS])


@pytest.mark.parametrize(
    ("method", "steps", "expected"),
    [
        (HybridStitch(8, 15, computed_share=0.57), 28, "8L 2M30 X M30 X M30 2X S X s X s X s X s X s L"),
        (HybridStitch(3, 5, computed_share=1.0), 10, "3L 2M30 5S"),
        (HybridStitch(3, 0, computed_share=1.0), 10, "3L 7M30"),
        (HybridStitch(4, 6, mask_ratio=0.155, computed_share=1.0), 8, "4L 2M15.5 2S"),
        (HybridStitch(0, 2, computed_share=1.0), 4, "2M30 2S"),
        (HybridStitch(6, 4, computed_share=1.0), 10, "6L 3M30 S"),
        (HybridStitch(99, computed_share=1.0), 10, "10L"),
        (HybridStitch(3, 5, mask_ratio=1.0, computed_share=1.0), 10, "5L 5S"),
        (HybridStitch(3, 5, mask_ratio=0.0, computed_share=1.0), 10, "3L 7S"),
        (HybridStitch(2, 3, score="change", computed_share=1.0), 4, "2L M30 S score=change"),
        (HybridStitch(8, 15, computed_share=0.0), 28, "8L M30 7X S 3X s 3X s 2X L"),
        (HybridStitch(), 28, "8L X L X L X M30 2X M30 2X M30 2X S X s X s L"),
        (HybridStitch(), 20, "8L X L X M30 X M30 2X S 2X L"),
        (HybridStitch(12), 28, "12L 2M30 2X M30 2X M30 2X S X s X s L"),
        (HybridStitch(150), 8, "8L"),
        (StepCache(), 28, "8L X L X L X L 2X L 2X C 3X C 3X L"),
        (StepCache(0.57, 0.5), 28, "8L X L X L X L X C X C 2X C 2X C 3X L"),
        (StepCache(0.57, 0.0), 28, "8L X L X L X L X L X L 2X L 2X L 3X L"),
        (StepCache(1.0, 0.5), 10, "5L 4C L"),
        (StepCache(0.0, 0.5), 10, "2L 7X C"),
        (TStitch(0.4), 10, "4S 6L"),
        (SRDiffusion(0.4), 10, "4L 6S"),
        (SRDiffusion(3), 10, "3L 7S"),
        (RAS(0.14, 0.25), 28, "4L 8M25x L 7M25x L 7M25x score=ras hold"),
    ],
)
def test_lists_by_hand(method: Method, steps: int, expected: str) -> None:
    plan = method.plan(Run(shifted(steps)))
    assert str(plan) == expected
    assert (plan.method, plan.sigmas, plan.profile) == (method.name, shifted(steps), GENERIC)


def test_without_a_negative_prompt_there_is_nothing_to_cache_of_guidance() -> None:
    assert "C" not in kinds(StepCache().plan(Run(shifted(28), guided=False)))


def test_a_plan_made_with_a_profile_says_which() -> None:
    profile = Profile("measured here", "0", (0.0, 1.0), (1.0, 1.0), (1.0, 1.0))
    assert StepCache().plan(Run(shifted(28), profile=profile)).profile == "measured here"


@pytest.mark.parametrize(
    ("value", "steps", "index"),
    [(0.0, 28, 0), (0.29, 50, 15), (0.5, 5, 3), (0.99, 10, 10), (0.01, 10, 0), (1, 28, 1), (12, 28, 12), (99, 28, 28)],
)
def test_a_point_is_a_fraction_rounded_as_it_is_written_or_a_whole_step(value: float, steps: int, index: int) -> None:
    assert step_index(value, steps) == index


@each_preset
def test_presets_name_settings_and_values_that_the_method_allows(method: type[Method], preset: str) -> None:
    values = method.preset(preset)
    assert values.keys() == {item.name for item in fields(method)} == method.specs().keys()
    for name, value in values.items():
        assert method.specs()[name].check(name, value) == value


def test_the_presets_of_the_two_methods_that_auto_comes_to_agree_in_what_they_share() -> None:
    shared = HybridStitch.specs().keys() & StepCache.specs().keys()
    assert shared == {"computed_share"}
    for name in StepCache.presets:
        assert {one: HybridStitch.preset(name)[one] for one in shared} == {
            one: StepCache.preset(name)[one] for one in shared
        }


@each_preset
@pytest.mark.parametrize("ancestral", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_every_preset_is_safe_at_every_number_of_steps(
    method: type[Method], preset: str, ancestral: bool, guided: bool
) -> None:
    for steps in range(1, 61):
        run = Run(shifted(steps), guided, ancestral)
        plan = secured(method(**method.preset(preset)).plan(run), run)
        letters = kinds(plan)
        assert len(letters) == steps
        assert letters[-1] != "X", "the last step is computed"
        for kind, row in ((Kind.EXTRAPOLATED, 2), (Kind.MASKED, 2), (Kind.CFG_CACHED, 3)):
            if kind.value in letters:
                assert longest_row(plan, Kind.LARGE, before=letters.index(kind.value)) >= row
        assert longest_row(plan, Kind.EXTRAPOLATED) <= (1 if ancestral else max(1, int(steps / 3.5)))
        assert steps >= 12 or "C" not in letters, "in a short pass guidance is not cached"
        assert set(plan.notes) <= {BEGINNING, *[ANCESTRAL] * ancestral, *[FEW_STEPS] * (steps < 28)}
        assert secured(plan, run).steps == plan.steps, "what is safe stays as it is"


@each_preset
def test_presets_of_usual_runs_need_no_change_to_be_safe(method: type[Method], preset: str) -> None:
    for steps in (28, 40, 50):
        run = Run(shifted(steps))
        plan = method(**method.preset(preset)).plan(run)
        assert secured(plan, run) == plan and not secured(plan, run).notes


def test_shares_mean_the_steps_that_are_sampled() -> None:
    """As img2img samples them: the last 28 of 80."""
    tail = Run(shifted(80)[-28:])
    assert tail.from_picture
    assert str(HybridStitch(0.25, 14.0, computed_share=1.0).plan(tail)) == "7L 7M30 14S"
    assert str(SRDiffusion(0.5).plan(tail)) == "14L 14S"
    assert str(StepCache(0.57, 0.5).plan(tail)) == "8L X L X L X L X C X C 2X C 2X C 3X L"


@pytest.mark.parametrize(
    ("steps", "from_picture", "index"), [(28, False, 8), (50, False, 15), (20, False, 7), (20, True, 6), (1, False, 0)]
)
def test_a_fraction_of_few_steps_from_noise_counts_for_more(steps: int, from_picture: bool, index: int) -> None:
    run = Run(tuple((0.9 if from_picture else 1.0) * sigma for sigma in shifted(steps)))
    assert cautious_index(0.3, run) == index
    assert cautious_index(5, run) == min(5, steps)
    assert cautious_index(0.99, run) == steps


@pytest.mark.parametrize("method", METHODS)
def test_settings_for_a_target_go_from_nearest_to_fastest(method: type[Method]) -> None:
    run = Run(shifted(28))
    plans = [method(**{**method.preset(""), **values}).plan(run) for values in method().faster()]
    computed = [sum(step.kind is Kind.LARGE for step in plan.steps) for plan in plans]
    assert len(plans) >= 8
    assert all(fewer <= more for more, fewer in pairwise(computed))
    for values in method().faster():
        for name, value in values.items():
            assert method.specs()[name].check(name, value) == value


def test_a_pass_that_begins_from_a_picture_has_no_small_steps_and_a_short_one_no_masked_ones() -> None:
    long, short = (Run(shifted(28)[-steps:]) for steps in (15, 9))
    assert {step.kind for step in HybridStitch().plan(long).steps} == {Kind.LARGE, Kind.MASKED, Kind.EXTRAPOLATED}
    assert {step.kind for step in HybridStitch().plan(short).steps} == {Kind.LARGE, Kind.EXTRAPOLATED}
    assert str(HybridStitch(**HybridStitch.preset("Paper")).plan(short)) == "4L 5M30"
