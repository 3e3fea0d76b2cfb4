"""Drawing with the demo's trained pair."""

from __future__ import annotations

from functools import cache

import diffusers
import pytest
import torch

from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.generate import (
    PROFILE,
    SAMPLERS,
    Pair,
    Request,
    batches,
    generate,
    load_pair,
    only,
    resolved,
    run_of,
)
from hybridstitch_demo.words import encode
from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.plans.plan import SMALL, Kind
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.settings import StitchSettings


@cache
def pair() -> Pair:
    return load_pair()


REQUEST = Request(("car on checks", "frog and star on blue"), (3, 4), steps=6)
STEP_CACHE = StitchSettings.from_dict({"method": "Step cache"})
HYBRIDSTITCH = StitchSettings.from_dict({"method": "HybridStitch", "small_checkpoint": "small"})


def test_the_pair_is_small_to_store_and_of_the_right_proportions():
    assert sum(file.stat().st_size for file in PAIR.glob("*.safetensors")) <= 30e6
    large, small = (sum(p.numel() for p in network.parameters()) for network in (pair().large, pair().small))
    assert 0.2 < small / large < 0.4
    assert pair().large.config.family == "SD3.5-Large-like" and pair().small.config.family == "SD3.5-Medium-like"


def test_without_a_plan_it_is_a_plain_euler_loop_of_the_large_model():
    result = generate(pair(), REQUEST)
    sampler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    sampler.set_timesteps(sigmas=[1 - step / 6 for step in range(6)])
    context, pooled = encode([*REQUEST.prompts, "", ""])
    x = REQUEST.noise()
    with torch.inference_mode():
        for timestep in sampler.timesteps:
            velocity = pair().large(torch.cat([x, x]), timestep.expand(4), pooled, context)
            cond, uncond = velocity.chunk(2)
            x = sampler.step(uncond + 3 * (cond - uncond), timestep, x, return_dict=False)[0]
        assert torch.allclose(result.latents, x, atol=1e-4)
        assert torch.allclose(result.pictures, pair().autoencoder.decode(x), atol=1e-3)
    assert [record.kind for record in result.report.evaluations()] == [Kind.LARGE] * 6


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("settings", [HYBRIDSTITCH, STEP_CACHE], ids=["HybridStitch", "Step cache"])
def test_a_sampler_gets_what_the_plan_says_of_its_noise_levels(settings: StitchSettings, sampler: str):
    request = Request(("pig on night",), (5,), steps=10, sampler=sampler)
    plan = resolved(pair(), request, settings).plan
    result = generate(pair(), request, plan)
    assert not result.report.failure
    assert torch.isfinite(result.pictures).all()
    records = result.report.evaluations()
    said = [plan.steps[plan.index(record.sigma) or 0].kind for record in records]
    assert [record.kind for record in records] == said
    assert set(said) > {Kind.LARGE}
    assert len(records) == (19 if sampler == "heun" else 10)
    assert len(run_of(request).sigmas) == 10


def test_pictures_depend_on_their_own_seed_and_prompt_alone():
    together = generate(pair(), REQUEST).pictures
    parts = [generate(pair(), part).pictures for part in batches(REQUEST, 1)]
    assert torch.allclose(torch.cat(parts), together, atol=1e-3)
    assert (together[0] - together[1]).abs().mean() > 0.05


def test_the_seed_decides_the_layout():
    request = Request(("panda on white",) * 4, (1, 2, 3, 4), steps=10)
    dark = generate(pair(), request).pictures.mean(1) < 0.5
    places = {tuple(picture.nonzero().float().mean(0).div(32).round().tolist()) for picture in dark}
    assert len(places) >= 3


def test_without_guidance_there_is_one_row_per_picture_and_nothing_to_cache():
    request = Request(("car on checks",), (1,), steps=12, cfg=1.0)
    plan = resolved(pair(), request, STEP_CACHE).plan
    assert Kind.CFG_CACHED not in {step.kind for step in plan.steps}
    assert {record.rows for record in generate(pair(), request, plan).report.evaluations()} == {1}


def test_the_small_model_alone_never_asks_the_large_one():
    report = generate(pair(), REQUEST, only(SMALL, REQUEST)).report
    assert [(record.kind, record.tokens_large) for record in report.evaluations()] == [(Kind.SMALL, 0)] * 6


def test_the_pairs_profile_places_the_steps_of_step_cache_and_says_so():
    profile, request = Profile.read(PROFILE), Request(("pig on night",), (5,))
    with_it, without = (resolved(pair(), request, STEP_CACHE, known).plan for known in (profile, None))
    assert with_it.profile == profile.name == "shipped with the demo pair"
    assert without.profile == "generic"
    assert with_it.steps != without.steps


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"size": 100}, "multiples of 16"),
        ({"size": 4096}, "64 to 512"),
        ({"sampler": "x"}, "heun"),
    ],
)
def test_impossible_requests_are_refused(changes, word):
    with pytest.raises(SettingsError, match=word):
        Request(("x",), (1,), **changes)
