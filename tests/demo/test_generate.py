"""Drawing with the demo's trained pair."""

from __future__ import annotations

import json
from functools import cache

import diffusers
import pytest
import torch
from PIL import Image

from hybridstitch_demo import command
from hybridstitch_demo.autoencoder import PAIR
from hybridstitch_demo.generate import (
    LARGE_ONLY,
    SAMPLERS,
    SMALL_ONLY,
    Pair,
    Request,
    batches,
    generate,
    load_pair,
    plan_for,
    schedule,
)
from hybridstitch_demo.words import encode
from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.settings import PRESETS, StitchSettings


@cache
def pair() -> Pair:
    return load_pair()


REQUEST = Request(("car on checks", "frog and star on blue"), (3, 4), steps=6)


def test_the_pair_is_small_to_store_and_of_the_right_proportions():
    assert sum(file.stat().st_size for file in PAIR.glob("*.safetensors")) <= 30e6
    large, small = (sum(p.numel() for p in network.parameters()) for network in (pair().large, pair().small))
    assert 0.2 < small / large < 0.4
    assert pair().large.config.family == "SD3.5-Large-like" and pair().small.config.family == "SD3.5-Medium-like"


def test_large_only_is_a_plain_euler_loop_with_diffusers_scheduler():
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
    assert [record.stage.value for record in result.report.evaluations()] == ["large"] * 6


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_with_every_sampler(sampler, preset):
    request = Request(("pig on night",), (5,), steps=6, sampler=sampler)
    result = generate(pair(), request, plan_for(StitchSettings.from_dict({"preset": preset}), request))
    assert not result.report.failure
    assert torch.isfinite(result.pictures).all()
    assert len(result.report.evaluations()) == (11 if sampler == "heun" else 6)
    assert len(schedule(request)) == 6


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


def test_without_guidance_there_is_one_stream():
    result = generate(pair(), Request(("car on checks",), (1,), steps=2, cfg=1.0), SMALL_ONLY)
    assert [record.rows for record in result.report.records] == [1, 1]


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


def test_the_command_writes_pictures_and_a_report(tmp_path, capsys):
    arguments = ["frog and zorble on blue", "--steps", "6", "--repeats", "1", "--count", "2", "--seed", "7", "--json"]
    assert (
        command.main(
            [*arguments, "--out", str(tmp_path), "--mask-ratio", "0.25", "--switch-step", "2", "--refresh-every", "3"]
        )
        == 0
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    for name in ("large", "small", "hybridstitch"):
        assert Image.open(tmp_path / f"{name}.png").size == (256, 128)
    assert Image.open(tmp_path / "comparison.png").width > 1000
    assert len(report["stages"]) == 6
    assert {"stage", "sigma", "tokens_large", "ms"} <= set(report["stages"][0])
    assert [entry["stage"] for entry in report["stages"]] == ["large"] * 2 + ["hybrid"] * 4
    assert report["unknown_words"] == ["zorble"] and report["known_words"] == ["blue", "frog"]
    assert report["settings"]["preset"] == "Custom" and report["settings"]["mask_ratio"] == 0.25
    assert report["ms_large_only"] > 0 and report["speedup_flops"] > 1.05
    assert 0 < report["lpips_to_large"] < report["lpips_small_to_large"]
    assert report["seed"] == 7 and report["failure"] == ""
    assert report["forecast"]["speedup"] == pytest.approx(report["speedup_flops"], rel=0.01)
    assert report["forecast"]["advice"] == ""


def test_identical_plans_are_at_distance_zero(tmp_path):
    assert command.main(["--steps", "2", "--repeats", "1", "--out", str(tmp_path), "--switch-step", "150"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["lpips_to_large"] == 0 and report["psnr_to_large"] == 100
    assert "switch_step" in report["forecast"]["advice"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mask-ratio", "2"], "mask_ratio"),
        (["--count", "99"], "count is 99, allowed are 1 to 16."),
        (["--size", "100"], "size is 100"),
        (["--repeats", "0"], "repeats"),
    ],
)
def test_wrong_arguments_get_one_sentence(arguments, sentence, tmp_path, capsys):
    assert command.main(["frog", *arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_plans_that_never_call_the_large_model_still_come_from_the_same_noise():
    assert LARGE_ONLY.stages != SMALL_ONLY.stages
    small = generate(pair(), REQUEST, SMALL_ONLY)
    assert [record.tokens_large for record in small.report.evaluations()] == [0] * 6


def test_a_target_speedup_becomes_a_plan(tmp_path):
    arguments = ["frog on blue", "--steps", "12", "--repeats", "1", "--target-speedup", "1.5", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["target_speedup"] == 0
    assert 0.99 * 1.5 <= report["speedup_flops"] == pytest.approx(report["forecast"]["speedup"], rel=0.01)
