"""The engine's laws: steps of every kind, joined exactly, whatever way a host calls it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Evaluation, Model, Prediction
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import StitchError
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import shared
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import LARGE as L
from lib_hybridstitch.plans.plan import SCORES, Kind, Plan, Step
from lib_hybridstitch.plans.safety import secured
from lib_hybridstitch.prediction.operations import Setup
from tests.engine.passes import (
    GRID,
    GROUPS,
    PAIR,
    TOKENS,
    alone,
    both,
    evaluation,
    large_model,
    large_network,
    latents,
    letters,
    sample,
    small_network,
    stitcher,
)
from tests.networks import LARGE, MEDIUM, InPlaceMMDiT
from tests.plans.schedules import shifted, written
from tests.plans.test_plan import STEPS
from tests.properties import tries

kinds = pytest.mark.parametrize("kind", [MMDiT, InPlaceMMDiT])


@kinds
def test_all_large_is_the_large_model_bit_for_bit(kind: type[MMDiT]) -> None:
    large = large_model(kind)
    assert torch.equal(sample(stitcher("6L", kind), full_pass=large.full_pass), alone(large_network(kind)))


@kinds
def test_all_small_is_the_small_model_bit_for_bit(kind: type[MMDiT]) -> None:
    assert torch.equal(sample(stitcher("6S", kind)), alone(small_network(kind)))


@kinds
def test_a_mask_of_everything_is_the_large_model(kind: type[MMDiT]) -> None:
    plan = Plan((L, L, *[Step(Kind.MASKED, 1.0)] * 4), shifted(6), "x")
    engine = stitcher(plan, kind)
    assert torch.allclose(sample(engine), alone(large_network(kind)), atol=2e-5)
    assert [record.tokens_large for record in engine.report.evaluations()] == [TOKENS] * 6


@kinds
def test_a_mask_of_nothing_is_the_small_model(kind: type[MMDiT]) -> None:
    plan = Plan((L, L, Step(Kind.MASKED, 0.0)), shifted(3), "x")
    engine, x = stitcher(plan, kind), latents()[0]
    *_, made = (engine.velocity(both(x, sigma)).velocity for sigma in plan.sigmas)
    assert torch.equal(made, Model(small_network(kind)).full_pass(both(x, plan.sigmas[2])).velocity)


@pytest.mark.parametrize("background", ["M25", "M25x"])
@kinds
def test_a_masked_step_is_the_large_model_on_its_mask_and_the_background_elsewhere(
    kind: type[MMDiT], background: str
) -> None:
    engine, x = stitcher(f"2L {background} hold", kind), latents()[0]
    cache, sigmas = KVCache(), engine.plan.sigmas
    made = [engine.velocity(both(x, sigma)).velocity for sigma in sigmas]
    mask = engine.report.masks[2][0]
    assert int(mask.sum()) == 6
    for sigma, chosen in ((sigmas[1], None), (sigmas[2], shared(mask.nonzero().flatten(), 2))):
        call = both(x, sigma)
        fresh = run(large_network(kind), call.x, call.sigma, call.context, call.pooled, chosen, cache)
    small = Model(small_network(kind)).full_pass(both(x, sigmas[2])).velocity
    elsewhere = made[1] if background == "M25x" else small
    patches = GRID.to_patches(made[2])
    assert torch.allclose(patches[:, mask], fresh, atol=1e-6)
    assert torch.allclose(patches[:, ~mask], GRID.to_patches(elsewhere)[:, ~mask], atol=1e-6)


def test_a_masked_step_right_behind_its_probe_is_the_full_result_at_its_tokens() -> None:
    plan = written("2L M25", (1.0, 0.5, 0.5 - 1e-6))
    engine, x = stitcher(plan), latents()[0]
    *_, full, made = (GRID.to_patches(engine.velocity(both(x, sigma)).velocity) for sigma in plan.sigmas)
    mask = engine.report.masks[2][0]
    assert torch.allclose(made[:, mask], full[:, mask], atol=5e-3)
    assert not torch.allclose(made[:, ~mask], full[:, ~mask], atol=1e-1)


PLANS = {
    "HybridStitch": "2L M30 X M30 X S X S",
    "change": "3L M40 X M40 S score=change",
    "own keys": "2L 2M30x X L M30x",
    "RAS": "2L 2M50x L 2M50x score=ras hold",
    "step cache": "3L X C X C",
    "small CFG cached": "3L M30 S s X s",
    "T-Stitch": "3S X 3L",
}
each_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


@each_plan
@kinds
def test_rows_may_come_in_any_order_and_number_of_calls(kind: type[MMDiT], plan: str) -> None:
    full_pass = large_model(kind).full_pass
    joint = sample(stitcher(plan, kind), (0, 1), full_pass=full_pass)
    for calls in ("uncond first", "split", "singles"):
        other = sample(stitcher(plan, kind), (0, 1), calls, full_pass=full_pass)
        assert torch.allclose(other, joint, atol=5e-5), calls


@each_plan
@pytest.mark.parametrize("calls", ["joint", "split"])
def test_a_batch_is_its_singles(plan: str, calls: str) -> None:
    together = sample(stitcher(plan), (0, 1, 2), calls)
    for index, image in enumerate((0, 1, 2)):
        assert torch.allclose(sample(stitcher(plan), (image,), calls)[0], together[index], atol=5e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@tries(60)
@given(
    steps=st.lists(st.one_of(STEPS, st.just(L)), min_size=3, max_size=9),
    score=st.sampled_from(SCORES),
    streams=st.sampled_from([(COND, UNCOND), (COND,), (COND, "cond 2", UNCOND)]),
    use_cache=st.booleans(),
)
def test_a_pass_does_what_its_plan_says_and_computes_what_was_predicted(
    steps: list[Step], score: str, streams: tuple[str, ...], use_cache: bool
) -> None:
    run_ = Run(shifted(len(steps)), guided=UNCOND in streams)
    plan = secured(Plan(tuple(steps), run_.sigmas, "any", score), run_)
    engine = stitcher(plan, use_cache=use_cache, small=Model(small_network()) if plan.needs_small else None)
    for index, sigma in enumerate(plan.sigmas):
        rows = [(0, stream) for stream in streams]
        engine.velocity(evaluation(latents(1, seed=index).expand(len(rows), -1, -1, -1), sigma, rows))
    setup = Setup(LARGE, MEDIUM, TOKENS, 5, 1, len(streams))
    assert not engine.report.failure
    for index, (record, step) in enumerate(zip(engine.report.evaluations(), plan.steps, strict=True)):
        work = setup.work(plan, index)
        assert record.kind is step.kind
        assert record.shares == pytest.approx((work.large * work.rows, work.small * work.rows), abs=0.01)


def test_a_host_gets_the_models_own_answer_back_untouched() -> None:
    own, velocity = torch.ones(1), latents()
    engine = stitcher("L S", small=Model(small_network(), lambda call: Prediction(velocity, own)))
    first, second = engine.plan.sigmas
    call = evaluation(latents(), first, full_pass=lambda call: Prediction(velocity, own))
    assert engine.velocity(call).own is own
    assert engine.velocity(replace(call, sigma=torch.full((2,), second))).own is own


def test_the_whole_evaluation_is_handed_to_the_host_as_it_came() -> None:
    seen: list[Evaluation] = []

    def full_pass(call: Evaluation) -> Prediction:
        seen.append(call)
        return Prediction(call.x)

    call = both(latents()[0], 1.0, full_pass=full_pass)
    stitcher("3L C").velocity(call)
    assert len(seen) == 1 and seen[0] is call


def test_noise_levels_that_belong_to_no_step_are_the_large_models() -> None:
    engine, x = stitcher("6S"), latents()[0]
    for sigma in (751.0, float("nan")):
        call = both(x, sigma, full_pass=lambda call: Prediction(call.x))
        assert engine.velocity(call).velocity is call.x
    assert letters(engine) == "LL" and not engine.report.failure


def test_the_second_evaluation_of_a_step_has_the_kind_of_its_noise_level() -> None:
    """Heun comes to every inner level twice: at the end of one step, and at the beginning of the next."""
    engine, x = stitcher("3L X M50 S"), latents()[0]
    for sigma in [engine.plan.sigmas[0], *(sigma for sigma in engine.plan.sigmas[1:] for _ in range(2))]:
        engine.velocity(both(x, sigma))
    assert letters(engine) == "LLLLLXXMMSS" and not engine.report.failure


def test_a_row_that_comes_late_is_computed_whole_and_then_joins() -> None:
    engine, x = stitcher("2L 3M25"), latents()[0]
    first, second, *rest = engine.plan.sigmas
    engine.velocity(evaluation(x[None], first, PAIR[:1]))
    engine.velocity(evaluation(x[None], second, PAIR[:1]))
    for sigma in rest:
        engine.velocity(both(x, sigma))
    assert [record.tokens_large for record in engine.report.evaluations()] == [24, 24, 24, 6, 6]
    assert letters(engine) == "LLLMM" and not engine.report.failure


def test_a_row_that_was_not_there_at_the_probe_is_computed_whole() -> None:
    """As the hosts leave the negative prompt out of some steps."""
    engine, x = stitcher("2L 2M25"), latents()[0]
    for sigma, rows in zip(engine.plan.sigmas, (PAIR, PAIR[:1], PAIR, PAIR)):
        engine.velocity(evaluation(torch.stack([x] * len(rows)), sigma, rows))
    assert letters(engine) == "LLLM" and not engine.report.failure


def test_inpainting_keeps_the_mask_inside_the_users_region() -> None:
    region = torch.zeros(TOKENS, dtype=torch.bool)
    region[[0, 1, 6]] = True
    engine = stitcher("2L 3M50 S", region=region)
    sample(engine, (0, 1))
    masks = [image.nonzero().flatten().tolist() for mask in engine.report.masks.values() for image in mask]
    assert masks == [[0, 1, 6]] * 6


@pytest.mark.parametrize("calls", GROUPS)
def test_a_region_without_a_token_leaves_everything_to_the_background(calls: str) -> None:
    region = torch.zeros(TOKENS, dtype=torch.bool)
    plan = Plan((L, L, Step(Kind.MASKED, 0.5)), shifted(3), "x")
    made = sample(stitcher(plan, region=region), calls=calls)
    assert torch.allclose(made, sample(stitcher("2L S"), calls=calls), atol=1e-5)


def test_a_plan_that_needs_a_small_model_says_so() -> None:
    with pytest.raises(StitchError, match="choose a small checkpoint"):
        Stitcher(large_model(), None, written("2L M30"))
    Stitcher(large_model(), None, written("3L X C M30x score=ras"))
