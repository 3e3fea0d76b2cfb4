"""The engine's laws: stages joined exactly, whatever way a host calls it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from lib_hybridstitch.engine.evaluation import Evaluation, Side
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import StitchError
from lib_hybridstitch.mmdit.kv_cache import KVCache
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.mmdit.partial import run
from lib_hybridstitch.mmdit.tokens import TokenGrid, shared
from lib_hybridstitch.plans.plan import HybridRule, Plan, Segment, Stage, make_plan
from lib_hybridstitch.settings import StitchSettings
from tests.networks import LARGE, MEDIUM, InPlaceMMDiT, inputs, random_network

NEVER = float("-inf")
SIGMAS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
BACKGROUNDS = [("small", "all"), ("small", "outside"), ("reuse", "all")]
SCORES = ("disagreement", "change", "detail")
kinds = pytest.mark.parametrize("kind", [MMDiT, InPlaceMMDiT])


def pair(kind: type[MMDiT] = MMDiT) -> tuple[MMDiT, MMDiT]:
    return random_network(LARGE, 0, kind), random_network(MEDIUM, 7, kind)


def hybrid(**rule: object) -> Plan:
    return Plan("HybridStitch", (Segment(Stage.HYBRID, NEVER),), HybridRule(**rule))


def evaluation(x: torch.Tensor, sigma: float, rows=((0, "cond"), (0, "uncond")), **more: object) -> Evaluation:
    _, context, pooled = inputs(LARGE, rows=4)
    index = [2 * (stream == "uncond") + image for image, stream in rows]
    return Evaluation(x, torch.full((len(rows),), sigma), context[index], pooled[index], tuple(rows), **more)


def sample(stitcher: Stitcher, images: int = 1, calls: str = "joint", sigmas=SIGMAS, start: int = 0, **more: object):
    """Integrate with Euler and guidance 3, grouping rows as hosts do; returns latents (images, C, H, W)."""
    noise, _, _ = inputs(LARGE, rows=4, seed=9)
    x = noise[start : start + images]
    cond = [(image + start, "cond") for image in range(images)]
    uncond = [(image + start, "uncond") for image in range(images)]
    groups = {
        "joint": [cond + uncond],
        "uncond first": [uncond + cond],
        "split": [cond, uncond],
        "singles": [[row] for row in uncond + cond],
    }[calls]
    for sigma, following in zip(sigmas, (*sigmas[1:], 0.0)):
        velocity = {}
        for rows in groups:
            latents = torch.stack([x[image - start] for image, _ in rows])
            velocity.update(zip(rows, stitcher.velocity(evaluation(latents, sigma, rows, **more))))
        guided = [velocity[i, "uncond"] + 3 * (velocity[i, "cond"] - velocity[i, "uncond"]) for i, _ in cond]
        x = x + (following - sigma) * torch.stack(guided)
    assert not stitcher.report.failure
    return x


def engine(plan: Plan, kind: type[MMDiT] = MMDiT, **options: object) -> Stitcher:
    large, small = pair(kind)
    return Stitcher(Side(large), Side(small), plan, **options)


def alone(network: MMDiT, **more: object) -> torch.Tensor:
    return sample(Stitcher(Side(network), None, Plan("large only", (Segment(Stage.LARGE, NEVER),))), **more)


@kinds
def test_all_large_is_the_large_model(kind):
    large, _ = pair(kind)
    assert torch.equal(sample(engine(Plan("x", (Segment(Stage.LARGE, NEVER),)), kind)), alone(large))


@kinds
def test_all_small_is_the_small_model(kind):
    _, small = pair(kind)
    assert torch.equal(sample(engine(Plan("x", (Segment(Stage.SMALL, NEVER),)), kind)), alone(small))


@kinds
@pytest.mark.parametrize(("background", "scope"), BACKGROUNDS)
def test_ratio_one_is_the_large_model_whatever_the_background(kind, background, scope):
    large, _ = pair(kind)
    plan = hybrid(mask_ratio=1.0, background=background, small_scope=scope, extrapolate=0.5)
    assert torch.equal(sample(engine(plan, kind)), alone(large))


@kinds
@pytest.mark.parametrize("scope", ["all", "outside"])
def test_ratio_zero_with_the_small_background_is_the_small_model(kind, scope):
    _, small = pair(kind)
    assert torch.equal(sample(engine(hybrid(mask_ratio=0.0, small_scope=scope), kind)), alone(small))


@kinds
def test_refreshing_every_evaluation_is_the_large_model(kind):
    large, _ = pair(kind)
    plan = hybrid(mask_ratio=0.3, refresh_every=1)
    assert torch.allclose(sample(engine(plan, kind)), alone(large), atol=1e-6)


@pytest.mark.parametrize("background", ["small", "reuse"])
def test_hybrid_takes_masked_tokens_from_the_large_model_and_the_rest_from_the_background(background):
    large, small = pair()
    stitched = engine(hybrid(mask_ratio=0.25, background=background))
    x, _, _ = inputs(LARGE)
    first = stitched.velocity(evaluation(x, 0.9))
    second = stitched.velocity(evaluation(x, 0.8))
    grid = TokenGrid.of(x)
    mask = stitched.report.masks[1][0]
    assert int(mask.sum()) == 6
    expected = first if background == "reuse" else Side(small).full(evaluation(x, 0.8), 2, False)
    assert torch.allclose(grid.to_patches(second)[:, ~mask], grid.to_patches(expected)[:, ~mask], atol=1e-6)
    cache, tokens = KVCache(), shared(mask.nonzero().flatten(), 2)
    for sigma, chosen in ((0.9, None), (0.8, tokens)):
        call = evaluation(x, sigma)
        fresh = run(large, x, call.sigma, call.context, call.pooled, chosen, cache)
    assert torch.allclose(grid.to_patches(second)[:, mask], fresh, atol=1e-6)


def test_the_mask_is_where_the_models_disagree_and_the_same_for_both_streams():
    stitched = engine(hybrid(mask_ratio=0.25))
    x, _, _ = inputs(LARGE)
    call = evaluation(x, 0.9)
    stitched.velocity(call)
    grid = TokenGrid.of(x)
    large, small = pair()
    gap = Side(large).full(call, 2, True) - Side(small).full(call, 2, False)
    scores = grid.to_patches(gap).abs().mean(-1).mean(0).view(1, 1, grid.height, grid.width)
    padded = torch.nn.functional.pad(scores, (1, 1, 1, 1), mode="replicate")
    smoothed = torch.nn.functional.avg_pool2d(padded, 3, 1).flatten()
    chosen = set(smoothed.topk(6).indices.tolist())
    stitched.velocity(evaluation(x, 0.8))
    assert set(stitched.report.masks[1][0].nonzero().flatten().tolist()) == chosen


@pytest.mark.parametrize(
    ("background", "score"),
    [(b, s) for b, s in product(BACKGROUNDS, SCORES)],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else v,
)
def test_rows_may_come_in_any_order_and_number_of_calls(background, score):
    plan = hybrid(
        mask_ratio=0.3,
        background=background[0],
        small_scope=background[1],
        score=score,
        refresh_every=3,
        extrapolate=0.5,
    )
    joint = sample(engine(plan), images=2)
    for calls in ("uncond first", "split", "singles"):
        assert torch.allclose(sample(engine(plan), images=2, calls=calls), joint, atol=2e-5), calls


METHODS = {
    "paper": {"preset": "Paper", "switch_step": 2, "handoff_step": 5},
    "balanced": {"preset": "Balanced", "switch_step": 2},
    "held": {"preset": "Balanced", "full_share": 0.8, "hold_guidance": 0.5},
    "threshold": {"preset": "Paper", "switch_step": 1, "handoff_step": 0, "mask_threshold": 1.25, "mask_ratio": 0.8},
    "t-stitch": {"method": "T-Stitch", "switch_step": 3},
    "srdiffusion": {"method": "SRDiffusion", "switch_step": 3},
    "adaptive": {"method": "SRDiffusion", "switch_step": 5, "adaptive": True},
    "ras": {"method": "RAS", "switch_step": 2, "mask_ratio": 0.5},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_is_its_singles(name):
    plan = make_plan(StitchSettings.from_dict(METHODS[name]), SIGMAS)
    together = sample(engine(plan), images=2)
    for image in range(2):
        alone_ = sample(engine(plan), images=1, start=image)
        assert torch.allclose(alone_[0], together[image], atol=2e-5)


def held_from(sigma: float) -> Plan:
    """Every evaluation a full pass; below σ with guidance held."""
    return hybrid(mask_ratio=0.0, background="reuse", refresh_every=1, hold_guidance=sigma)


def test_held_guidance_adds_the_last_difference_to_the_prompts_fresh_velocity():
    stitched, (large, _) = engine(held_from(0.85)), pair()
    x, _, _ = inputs(LARGE)
    before = stitched.velocity(evaluation(x, 0.9))
    after = stitched.velocity(evaluation(x, 0.8))
    alone_ = Side(large).full(evaluation(x[:1], 0.8, rows=((0, "cond"),)), 2, True)
    assert torch.allclose(before, Side(large).full(evaluation(x, 0.9), 2, True), atol=1e-6)
    assert torch.allclose(after[0], alone_[0], atol=1e-6)
    assert torch.allclose(after[1], alone_[0] + before[1] - before[0], atol=1e-6)
    first, second = stitched.report.evaluations()
    assert (first.full, first.rows_held, first.tokens_large) == (True, 0, 24)
    assert (second.full, second.rows_held, second.tokens_large) == (True, 1, 12)


def test_guidance_is_held_however_the_rows_come_unless_the_empty_prompt_comes_first_and_alone():
    plan = held_from(0.6)
    joint = sample(engine(plan), images=2)
    for calls in ("uncond first", "split"):
        assert torch.allclose(sample(engine(plan), images=2, calls=calls), joint, atol=2e-5), calls
    waits = engine(plan)
    assert torch.allclose(sample(waits, images=2, calls="singles"), alone(pair()[0], images=2), atol=2e-5)
    assert sum(record.rows_held for record in waits.report.records) == 0
    assert not torch.allclose(joint, alone(pair()[0], images=2), atol=1e-3)


def test_only_the_empty_prompt_is_held_and_only_once_a_difference_is_known():
    x, _, _ = inputs(LARGE)
    rows = ((0, "cond"), (0, "cond 2"), (0, "uncond"))
    latents = x[:1].expand(3, -1, -1, -1)
    stitched = engine(held_from(2.0))
    for sigma in (0.9, 0.8):
        stitched.velocity(replace(evaluation(latents, sigma, ((0, "cond"), (1, "cond"), (0, "uncond"))), rows=rows))
    assert [record.rows_held for record in stitched.report.records] == [0, 1]
    assert stitched.report.records[1].tokens_large == pytest.approx(24 * 2 / 3)
    unguided = engine(held_from(2.0))
    for sigma in (0.9, 0.8):
        unguided.velocity(evaluation(x[:1], sigma, rows=((0, "cond"),)))
    assert [(record.rows_held, record.tokens_large) for record in unguided.report.records] == [(0, 24), (0, 24)]


def test_masks_above_a_threshold_differ_in_size_between_images():
    plan = make_plan(StitchSettings.from_dict(METHODS["threshold"]), SIGMAS)
    stitched = engine(plan)
    sample(stitched, images=2)
    sizes = {tuple(mask.sum(1).tolist()) for mask in stitched.report.masks.values()}
    assert any(a != b for a, b in sizes)
    assert all(max(pair_) <= 19 for pair_ in sizes)


def test_two_evaluations_at_one_sigma_are_two_evaluations():
    stitched = engine(hybrid(mask_ratio=0.25, background="reuse", score="detail", extrapolate=1.0))
    x, _, _ = inputs(LARGE)
    for sigma in (0.9, 0.8, 0.8, 0.7):
        stitched.velocity(evaluation(x, sigma))
    assert [record.sigma for record in stitched.report.evaluations()] == pytest.approx([0.9, 0.8, 0.8, 0.7])


def test_an_unconditional_stream_that_comes_late_gets_its_own_full_pass():
    stitched = engine(hybrid(mask_ratio=0.25))
    x, _, _ = inputs(LARGE)
    stitched.velocity(evaluation(x[:1], 0.9, rows=((0, "cond"),)))
    stitched.velocity(evaluation(x, 0.8))
    assert stitched.report.records[1].tokens_large == 24
    stitched.velocity(evaluation(x, 0.7))
    assert stitched.report.records[2].tokens_large == 6
    assert not stitched.report.failure


def test_extrapolation_continues_a_line_in_log_snr():
    from lib_hybridstitch.engine.state import RowState
    from lib_hybridstitch.plans.profile import log_snr

    line = torch.tensor([[1.0], [10.0]])

    def level(sigma: float) -> float:
        return log_snr(sigma) + 8

    state = RowState.start(line * level(0.9), 0.9)
    state.update(line * level(0.8), 0.8, None)
    assert torch.allclose(state.at(0.7, 1.0), line * level(0.7))
    assert torch.allclose(state.at(0.7, 0.5), line * (level(0.7) + level(0.8)) / 2)
    assert torch.equal(state.at(0.7, 0.0), line * level(0.8))
    # Only the first token moves on; the second still rests on 0.9 and 0.8. The same σ again replaces, not pushes.
    state.update(line[:1] * level(0.7), 0.7, torch.tensor([0]))
    state.update(line[:1] * level(0.7), 0.7, torch.tensor([0]))
    assert torch.allclose(state.at(0.5, 1.0), line * level(0.5))
    # It never reaches further than four times the distance of its points.
    ends = [[level(a) + 4 * (level(a) - level(b))] for a, b in ((0.7, 0.8), (0.8, 0.9))]
    assert torch.allclose(state.at(0.0, 1.0), line * torch.tensor(ends))


def test_inpainting_cuts_the_mask_to_the_users_region():
    region = torch.zeros(24, dtype=torch.bool)
    region[[0, 1, 6]] = True
    stitched = engine(hybrid(mask_ratio=0.5), region=region)
    sample(stitched)
    masks = [mask[0].nonzero().flatten().tolist() for mask in stitched.report.masks.values()]
    assert masks and all(mask == [0, 1, 6] for mask in masks)


def test_adaptive_srdiffusion_switches_once_settled_and_never_back():
    plan = make_plan(StitchSettings.from_dict({**METHODS["adaptive"], "switch_step": 0.9}), SIGMAS)
    stitched = engine(replace(plan, adaptive=replace(plan.adaptive, tolerance=10.0)))
    sample(stitched, images=1)
    stages = [record.stage.value for record in stitched.report.evaluations()]
    assert stages[:3] == ["large"] * 3 and stages[-1] == "small"
    assert stages == sorted(stages)


@pytest.mark.parametrize("scope", ["all", "outside"])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("background", ["small", "reuse"])
def test_a_run_does_what_its_plan_foretold(background, ratio, score, scope):
    rule = HybridRule(ratio, score=score, background=background, small_scope=scope, refresh_every=3)
    plan = Plan("x", (Segment(Stage.LARGE, 0.9), Segment(Stage.HYBRID, 0.3), Segment(Stage.SMALL, NEVER)), rule)
    stitched = engine(plan)
    sample(stitched)
    happened = [(one.stage, one.tokens_large == 24, one.tokens_small > 0) for one in stitched.report.evaluations()]
    assert happened == [(step.stage, step.full, step.small) for step in plan.steps(SIGMAS)]


def test_a_plan_that_needs_a_small_model_says_so():
    with pytest.raises(StitchError, match="small checkpoint"):
        Stitcher(Side(random_network(LARGE)), None, hybrid(mask_ratio=0.3))


@pytest.mark.parametrize("fault", ["exception", "nan"])
def test_the_large_model_finishes_what_we_cannot(fault):
    large, small = pair()
    calls = []

    def broken(call: Evaluation) -> torch.Tensor:
        calls.append(call)
        if fault == "exception":
            raise RuntimeError("no more")
        return torch.full_like(call.x, float("nan"))

    plan = Plan("x", (Segment(Stage.LARGE, 0.5), Segment(Stage.SMALL, NEVER)))
    stitched = Stitcher(Side(large), Side(small, forward=broken), plan)
    x, _, _ = inputs(LARGE)
    got = [stitched.velocity(evaluation(x, sigma)) for sigma in (0.9, 0.4, 0.3)]
    wanted = [Side(large).full(evaluation(x, sigma), 2, True) for sigma in (0.9, 0.4, 0.3)]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted))
    assert len(calls) == 1
    assert ("no more" if fault == "exception" else "not finite") in stitched.report.failure
    assert stitched.state.large_cache.bytes() == 0
    evaluations = stitched.report.evaluations()
    assert [(one.evaluation, one.stage, one.tokens_large) for one in evaluations] == [
        (number, Stage.LARGE, 24) for number in range(3)
    ]


def test_what_the_large_model_raises_in_its_own_stage_passes_untouched():
    def interrupted(call: Evaluation) -> torch.Tensor:
        raise ZeroDivisionError("the host's own")

    stitched = Stitcher(Side(random_network(LARGE), interrupted), None, Plan("x", (Segment(Stage.LARGE, NEVER),)))
    x, _, _ = inputs(LARGE)
    with pytest.raises(ZeroDivisionError, match="the host's own"):
        stitched.velocity(evaluation(x, 0.9))
    assert not stitched.report.failure


def test_interrupts_are_never_caught():
    def interrupted(call: Evaluation) -> torch.Tensor:
        raise KeyboardInterrupt

    large, small = pair()
    stitched = Stitcher(Side(large), Side(small, interrupted), Plan("x", (Segment(Stage.SMALL, NEVER),)))
    x, _, _ = inputs(LARGE)
    with pytest.raises(KeyboardInterrupt):
        stitched.velocity(evaluation(x, 0.9))


def test_the_report_tells_what_happened_and_the_run_frees_its_memory():
    plan = make_plan(StitchSettings.from_dict(METHODS["paper"]), SIGMAS)
    stitched = engine(plan)
    sample(stitched)
    records = stitched.report.evaluations()
    assert [record.stage.value for record in records] == ["large"] * 2 + ["hybrid"] * 3 + ["small"]
    assert [record.tokens_large for record in records] == [24, 24, 24, 7, 7, 0]
    assert [record.tokens_small for record in records] == [0, 0, 24, 24, 24, 24]
    assert stitched.report.mean_mask_ratio() == pytest.approx((24 + 7 + 7) / 24 / 3)
    assert all(record.ms > 0 for record in records)
    assert stitched.report.cache_bytes == 2 * 192 * 2 * 4 * 3 * (24 + 5)
    stitched.finish()
    assert stitched.state.large_cache.bytes() == 0 and not stitched.state.rows
