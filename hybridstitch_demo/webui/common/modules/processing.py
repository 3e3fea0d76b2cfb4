"""Generations: p, and what the host does with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

from modules import (
    extra_networks,
    infotext_utils,
    processing_host,
    rng,
    scripts,
    sd_encoding,
    sd_models,
    sd_samplers,
    shared,
)
from modules.processing_base import StableDiffusionProcessing as StableDiffusionProcessing
from modules.processing_passes import StableDiffusionProcessingImg2Img as StableDiffusionProcessingImg2Img
from modules.processing_passes import StableDiffusionProcessingTxt2Img as StableDiffusionProcessingTxt2Img
from modules.shared import opts, state
from modules.standin import journal


class Processed:
    """What came out."""

    def __init__(self, p: Any, images_list: list[Any], info: str = "", infotexts: list[str] | None = None) -> None:
        self.images, self.info, self.infotexts = images_list, info, infotexts or [info]
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.extra_generation_params = p.extra_generation_params
        self.all_seeds, self.all_prompts = p.all_seeds, p.all_prompts
        self.index_of_first_image = 0
        self.extra_images: list[Any] = []


def create_infotext(p: Any, all_prompts: Any, all_seeds: Any, all_subseeds: Any, index: int = 0, **rest: Any) -> str:
    """The text under a picture; functions among the parameters are called, lists are indexed, None is left out."""
    params = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash,
        "Model": p.sd_model_name,
        **p.extra_generation_params,
    }
    prompt_text = all_prompts[index]
    for key, value in params.items():
        if callable(value):
            params[key] = value(p=p, index=index, prompt_text=prompt_text, all_prompts=all_prompts, all_seeds=all_seeds)
        elif isinstance(value, list):
            params[key] = value[index]
    shown = {key: value for key, value in params.items() if value is not None}
    return f"{prompt_text}\n" + ", ".join(f"{key}: {infotext_utils.quote(value)}" for key, value in shown.items())


def get_fixed_seed(seed: Any) -> int:
    """A seed; -1, an empty value and text that is not a number mean a random one."""
    try:
        number = int(seed)
    except (TypeError, ValueError):
        number = -1
    return random.randrange(4294967294) if number == -1 else number


def fix_seed(p: Any) -> None:
    """Decide the seeds."""
    if not isinstance(p.seed, list):
        p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)


def process_images(p: Any) -> Processed:
    """Generate; the checkpoint is loaded after `before_process`."""
    if p.scripts is not None:
        p.scripts.before_process(p)
    if p.override_settings.get("sd_model_checkpoint") not in sd_models.checkpoint_aliases:
        p.override_settings.pop("sd_model_checkpoint", None)
    with shared.override(p.override_settings, p.override_settings_restore_afterwards):
        journal.hooks.append("model load")
        processing_host.load_model(p)
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)


def process_images_inner(p: Any) -> Processed:
    """Everything between loading the model and `postprocess`."""
    if p.refiner_checkpoint not in (None, "", "None", "none"):
        p.refiner_checkpoint_info = sd_models.get_closet_checkpoint_match(p.refiner_checkpoint)
    p.sd_model_name = shared.sd_model.sd_checkpoint_info.name_for_extra
    p.sd_model_hash = shared.sd_model.sd_model_hash
    p.width, p.height = p.width // 16 * 16, p.height // 16 * 16
    fix_seed(p)
    state.job_count = p.n_iter * (2 if getattr(p, "enable_hr", False) else 1)
    p.s_min_uncond = opts.s_min_uncond if p.s_min_uncond is None else p.s_min_uncond
    p.setup_prompts()
    count = len(p.all_prompts)
    p.all_seeds = p.seed if isinstance(p.seed, list) else [int(p.seed) + i for i in range(count)]
    p.all_subseeds = [int(p.subseed) + i for i in range(count)]
    if p.scripts is not None:
        p.scripts.process(p)
    images: list[Any] = []
    infotexts: list[str] = []
    with processing_host.grad_mode():
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
        for number in range(p.n_iter):
            p.iteration, state.skipped = number, False
            if state.interrupted or state.stopping_generation:
                break
            for image, text in _batch(p, number):
                images.append(image)
                infotexts.append(text)
    if p.extra_network_data and not p.disable_extra_networks:
        extra_networks.deactivate(p, p.extra_network_data)
    infotexts = infotexts or [create_infotext(p, p.all_prompts, p.all_seeds, p.all_subseeds)]
    processed = Processed(p, images, infotexts[0], infotexts)
    if p.scripts is not None:
        p.scripts.postprocess(p, processed)
    return processed


def _batch(p: Any, number: int) -> Iterator[tuple[Any, str]]:
    """Generate a batch; yields picture and infotext of each image, made after sampling."""
    processing_host.begin_batch(p)
    _choose(p, number)
    shape = (shared.sd_model.latent_channels, p.height // sd_encoding.SCALE, p.width // sd_encoding.SCALE)
    p.rng = rng.ImageRNG(shape, p.seeds, p.subseeds, p.subseed_strength)
    batch = {"batch_number": number, "prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}
    runner = p.scripts if p.scripts is not None else scripts.ScriptRunner()
    runner.before_process_batch(p, **batch)
    p.parse_extra_network_prompts()
    if not p.disable_extra_networks:
        extra_networks.activate(p, p.extra_network_data)
    processing_host.after_networks(p)
    runner.process_batch(p, batch_number=number, prompts=p.prompts, seeds=p.seeds, subseeds=p.subseeds)
    journal.hooks.append("conds")
    p.setup_conds()
    samples = p.sample(p.c, p.uc, p.seeds, p.subseeds, p.subseed_strength, p.prompts)
    if not getattr(samples, "already_decoded", False):
        journal.latents.append(samples.clone())
    args = scripts.PostSampleArgs(samples)
    runner.post_sample(p, args)
    samples = args.samples
    if not getattr(samples, "already_decoded", False):
        processing_host.check(samples)
        samples = list(sd_encoding.decode(samples))
    state.nextjob()
    pictures = torch.stack(list(samples)).float().add(1).div(2).clamp(0, 1)
    runner.postprocess_batch(p, pictures, batch_number=number)
    _choose(p, number)
    listed = scripts.PostprocessBatchListArgs(list(pictures))
    runner.postprocess_batch_list(p, listed, batch_number=number)
    for index, picture in enumerate(listed.images):
        p.batch_index = index
        shown = processing_host.image_args(picture, index + number * p.batch_size)
        for hook in ("postprocess_image", "postprocess_maskoverlay", "postprocess_image_after_composite"):
            getattr(runner, hook)(p, shown)
        yield shown.image, create_infotext(p, p.prompts, p.seeds, p.subseeds, index)


def _choose(p: Any, number: int) -> None:
    part = slice(number * p.batch_size, (number + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
    p.seeds, p.subseeds = p.all_seeds[part], p.all_subseeds[part]
