"""The stand-ins behave as the hosts were measured, so that a change of them is noticed.

The same script is loaded into all three; what differs between the families is written out.
"""

from __future__ import annotations

import sys

import pytest
import torch

from tests.standins.probe import Install, everyone, log_of, times

# Life of a request


@everyone
def test_hooks_come_in_the_hosts_order(install: Install, name: str) -> None:
    denoised = ["on_cfg_denoised"] if name == "a1111" else []
    assert install(name).generate(steps=2).hook_log == [
        *["setup", "before_process", "model load", "on_model_loaded", "process"],
        *["before_process_batch", "after_extra_networks_activate", "process_batch", "conds"],
        "process_before_every_sampling",
        *["on_cfg_denoiser", "model", *denoised, "on_cfg_after_cfg"] * 2,
        *["post_sample", "postprocess_batch", "postprocess_batch_list", "postprocess_image"],
        *["postprocess_maskoverlay", "postprocess_image_after_composite", "postprocess"],
    ]


@everyone
def test_the_api_fills_arguments_by_position_and_drops_what_is_too_much(install: Install, name: str) -> None:
    host = install(name)
    host.generate(steps=1, alwayson={"pRoBe": [True]})
    host.generate(steps=1, args=[1, 2, 3])
    assert [entry[1] for entry in log_of(host) if entry[0] == "process"] == [(True, "plain"), (1, 2)]
    with pytest.raises(KeyError, match="nobody not found"):
        host.generate(alwayson={"nobody": []})


@everyone
def test_exceptions_of_hooks_and_callbacks_change_nothing(install: Install, name: str) -> None:
    host = install(name)
    plain = host.generate()
    host.shared.act = lambda p: 1 / 0
    host.callbacks.on_cfg_denoiser(lambda params: params.nothing)
    result = host.generate()
    assert torch.equal(result.latents, plain.latents)
    assert [type(error) for error in result.swallowed] == [ZeroDivisionError] + [AttributeError] * 4


@everyone
def test_an_exception_inside_the_model_comes_out_and_no_later_hook_is_called(install: Install, name: str) -> None:
    host = install(name)
    host.load()

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("broken model")

    host.network.forward = broken
    with pytest.raises(RuntimeError, match="broken model"):
        host.generate()
    assert host.journal.hooks[-1] == "model"
    host.reload_ui()
    with pytest.raises(RuntimeError, match="broken model"):
        host.generate()
    del host.network.forward
    assert host.generate().latents.isfinite().all()


@everyone
def test_infotext_of_sampling_appears_under_the_picture_and_later_does_not(install: Install, name: str) -> None:
    host = install(name)
    host.shared.act = lambda p: p.extra_generation_params.update({"While sampling": 5}) or p.comment("Said so.")
    result = host.generate(args=[True, "a, b"])
    parsed = host.module("modules.infotext_utils").parse_generation_parameters(result.infotexts[0])
    assert parsed["While sampling"] == "5" and parsed["Probe text"] == "a, b" and "Probe late" not in parsed
    assert result.comments == ["Said so."]
    fields = host.runner("txt2img").infotext_fields
    assert host.module("modules.infotext_utils").values_for(fields, {**parsed, "Probe on": "False"}) == [False, "a, b"]


@everyone
def test_an_interrupt_keeps_the_last_latent_and_runs_the_hooks_after_it(install: Install, name: str) -> None:
    host = install(name)
    result = host.generate(steps=6, interrupt_after=2)
    assert len(result.calls) == 2 and result.hook_log[-1] == "postprocess" and result.latents.shape[0] == 1
    assert not issubclass(host.module("modules.sd_samplers_common").InterruptedException, Exception)
    assert host.generate().latents.isfinite().all()


@everyone
def test_a_batch_equals_its_pictures_one_by_one_in_any_thread(install: Install, name: str) -> None:
    host = install(name)
    for sampler in ("Euler", "Euler a", "DPM++ SDE"):
        batch = host.generate(seed=7, batch_size=2, n_iter=2, steps=2, sampler_name=sampler, thread=True).latents
        singles = torch.cat([host.generate(seed=7 + i, steps=2, sampler_name=sampler).latents for i in range(4)])
        assert batch.shape == (4, 4, 16, 16)
        assert torch.allclose(batch, singles, atol=1e-5)
    assert torch.equal(host.generate(seed=7).latents, host.generate(seed=7).latents)


@everyone
def test_p_has_no_hash_and_asks_for_the_model_of_the_moment(install: Install, name: str) -> None:
    host = install(name)
    p = host.processing()
    with pytest.raises(TypeError, match="unhashable"):
        hash(p)
    assert p.sd_model is host.sd_model
    assert hasattr(p.sd_model, "forge_objects") is False
    host.load()
    assert hasattr(p.sd_model, "forge_objects") is (name != "a1111")


def test_settings_that_were_never_saved_leak_out_of_a_request(install: Install) -> None:
    host = install("a1111")
    host.generate(override_settings={"probe": 9, "eta_ddim": 0.5})
    assert (host.opts.probe, host.opts.eta_ddim) == (9, 0.0)


@everyone
def test_reload_ui_runs_the_file_again_and_keeps_the_model(install: Install, name: str) -> None:
    host = install(name)
    host.generate(steps=1)
    model, before = host.sd_model, log_of(host)
    host.reload_ui()
    after = log_of(host)
    assert before[-1] == ("unloaded",) and after == [] and after is not before
    assert host.sd_model is model and host.opts.probe == 3
    host.generate(steps=1)
    assert len([entry for entry in after if entry[0] == "process"]) == 1
    assert "probe.py" not in sys.modules


# Noise levels, as measured on the hosts

LEVELS = [
    ("a1111", "Euler", "Automatic", [1.0, 0.857, 0.601, 0.003]),
    ("a1111", "DPM++ 2M", "Automatic", [1.0, 0.233, 0.037, 0.003]),
    ("a1111", "Heun", "Automatic", [1.0, 0.857, 0.857, 0.601, 0.601, 0.003, 0.003]),
    ("a1111", "DDIM", "Automatic", [751.0, 501.0, 251.0]),
    ("forge", "Euler", "Simple", [1.0, 0.9, 0.75, 0.5]),
    ("forge", "DPM++ 2M", "Automatic", [1.0, 0.233, 0.037, 0.003]),
]


@pytest.mark.parametrize(("name", "sampler", "scheduler", "levels"), LEVELS)
def test_samplers_visit_the_measured_noise_levels(
    install: Install, name: str, sampler: str, scheduler: str, levels: list[float]
) -> None:
    assert times(install(name).generate(sampler_name=sampler, scheduler=scheduler)) == levels


@everyone
def test_dpmpp_sde_evaluates_midpoints(install: Install, name: str) -> None:
    levels = times(install(name).generate(sampler_name="DPM++ SDE"))
    assert len(levels) == 7 and levels == sorted(levels, reverse=True) and levels[::2] == [1.0, 0.9, 0.75, 0.5]


def test_img2img_begins_later_and_counts_from_zero(install: Install) -> None:
    host, steps = install("a1111"), []
    host.callbacks.on_cfg_denoiser(lambda params: steps.append((params.sampling_step, params.denoiser.step)))
    result = host.generate("img2img", steps=8, denoising_strength=0.5, scheduler="Automatic")
    assert times(result)[0] == 0.8 and len(result.calls) == 5
    assert steps == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4)]


def test_ersatz_tells_the_step_without_lag(install: Install) -> None:
    host, steps = install("ersatz"), []
    host.callbacks.on_cfg_denoiser(lambda params: steps.append(params.sampling_step))
    host.generate()
    assert steps == [0, 1, 2, 3]


def test_the_sampler_of_a_pass_tells_its_schedule_before_sampling(install: Install) -> None:
    host, told = install("forge"), []
    host.shared.act = lambda p: told.append([round(float(s), 3) for s in p.sampler.get_sigmas(p, p.steps)])
    host.generate()
    assert told == [[1.0, 0.9, 0.75, 0.5, 0.0]]
    host.shared.act = lambda p: told.append(hasattr(p.sampler, "get_sigmas"))
    host.generate(sampler_name="DDIM")
    assert told[-1] is False


def test_automatic_makes_forge_divide_by_zero(install: Install) -> None:
    result = install("forge").generate(scheduler="Automatic")
    assert times(result)[-1] == 0.0 and result.latents.isnan().all() and len(result.images) == 1


def test_a1111_refuses_nan(install: Install) -> None:
    host = install("a1111")
    with torch.no_grad():
        host.network.final_layer.linear.bias.fill_(float("nan"))
    with pytest.raises(host.module("modules.devices").NansException):
        host.generate()


# Hires


@pytest.mark.parametrize(("name", "calls"), [("a1111", 1), ("forge", 2), ("ersatz", 1)])
def test_hires_announces_its_pass(install: Install, name: str, calls: int) -> None:
    host, unets = install(name), []
    host.shared.act = lambda p: unets.append(id(getattr(p.sd_model, "forge_objects", None)))
    more = {"hr_cfg": 3.0} if name != "a1111" else {}
    result = host.generate(enable_hr=True, hr_scale=1.5, denoising_strength=0.6, hr_second_pass_steps=3, **more)
    hires = [entry for entry in log_of(host) if entry[0] == "before sampling" and entry[2]]
    assert hires == [("before sampling", ("c", "noise", "uc", "x"), True)] * calls
    assert times(result)[4:] == pytest.approx([0.818, 0.667, 0.429], abs=0.001)
    assert [unets[-1] != unet for unet in unets] == ([False, False] if name == "a1111" else [*[True] * calls, False])
    assert [entry for entry in log_of(host) if entry[0] == "post_sample"] == [("post_sample", False)]
    assert result.latents.shape == (1, 4, 24, 24) and result.images[0].shape == (3, 192, 192)
    assert result.hook_log.count("post_sample") == 1


def test_forges_hires_has_no_guidance_by_default(install: Install) -> None:
    result = install("forge").generate(enable_hr=True, denoising_strength=0.6)
    assert {call.chunks for call in result.calls[4:]} == {(0,)}
