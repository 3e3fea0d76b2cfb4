"""The passes of a generation: txt2img, its second pass, img2img with inpainting. A host has them in `processing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modules import extra_networks, processing_host, rng, scripts, sd_encoding, sd_models, sd_samplers, shared
from modules.processing_base import DecodedSamples, StableDiffusionProcessing
from modules.shared import opts, state
from modules.standin import journal


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    """txt2img, with or without hires."""

    enable_hr: bool = False
    denoising_strength: float = 0.75
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_additional_modules: Any = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_cfg: float = 1.0
    hr_distilled_cfg: float = 3.5
    hr_checkpoint_info: Any = field(default=None, init=False)
    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)
    latent_scale_mode: Any = field(default=None, init=False)
    hr_c: Any = field(default=None, init=False)
    hr_uc: Any = field(default=None, init=False)
    hr_prompts: Any = field(default=None, init=False)
    hr_negative_prompts: Any = field(default=None, init=False)
    hr_extra_network_data: Any = field(default=None, init=False)

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        """Note what hires will do."""
        if not self.enable_hr:
            return
        self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
        self.hr_upscale_to_x = self.hr_resize_x or int(self.width * self.hr_scale)
        self.hr_upscale_to_y = self.hr_resize_y or int(self.height * self.hr_scale)
        self.latent_scale_mode = shared.latent_upscale_modes[shared.latent_upscale_default_mode]
        self.hr_scheduler = self.hr_scheduler or self.scheduler
        self.extra_generation_params.update(
            {"Denoising strength": self.denoising_strength, "Hires upscale": self.hr_scale}
        )
        if self.hr_second_pass_steps:
            self.extra_generation_params["Hires steps"] = self.hr_second_pass_steps

    def parse_extra_network_prompts(self) -> None:
        """Take `<lora:...>` out of both passes' prompts."""
        self.hr_prompts = [self.hr_prompt or prompt for prompt in self.prompts]
        self.hr_negative_prompts = [self.hr_negative_prompt or prompt for prompt in self.negative_prompts]
        super().parse_extra_network_prompts()
        self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.hr_prompts)

    def setup_conds(self) -> None:
        """Encode the first pass's prompts; in the second pass, which a refiner may have asked for, its own."""
        if self.is_hr_pass:
            self.hr_c = None
            self.calculate_hr_conds()
            return
        super().setup_conds()
        self.hr_c = self.hr_uc = None

    def calculate_hr_conds(self) -> None:
        """Encode the second pass's prompts, unless that is done."""
        if self.hr_c is not None:
            return
        config = sd_samplers.find_sampler_config(self.hr_sampler_name or self.sampler_name)
        steps = config.total_steps(self.hr_second_pass_steps or self.steps)
        self.hr_c, self.hr_uc = self.encode(
            self.hr_prompts, self.hr_negative_prompts, self.firstpass_steps, steps, processing_host.hires_cfg(self)
        )

    def get_conds(self) -> tuple[Any, Any]:
        """The text of the pass that runs."""
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Any:
        """First pass, and second where it is wanted."""
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        x = self.rng.next()
        processing_host.begin_pass(self)
        self.announce(x=x, noise=x, c=conditioning, uc=unconditional_conditioning)
        x = self.take_modified_noise(x)
        samples = self.sampler.sample(self, x, conditioning, unconditional_conditioning)
        if not self.enable_hr:
            return samples
        if self.hr_checkpoint_info is not None:
            processing_host.switch_model(self.hr_checkpoint_info)
        return self.sample_hr_pass(samples, None, seeds, subseeds, subseed_strength, prompts)

    def sample_hr_pass(
        self, samples: Tensor, decoded: Any, seeds: Any, subseeds: Any, subseed_strength: float, prompts: Any
    ) -> Any:
        """Enlarge the latents and sample the end of a schedule again; returns pictures."""
        if state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        size = (self.hr_upscale_to_y // sd_encoding.SCALE, self.hr_upscale_to_x // sd_encoding.SCALE)
        samples = functional.interpolate(samples, size=size, mode=self.latent_scale_mode["mode"])
        state.nextjob()
        self.rng = rng.ImageRNG(samples.shape[1:], self.seeds, self.subseeds, self.subseed_strength)
        noise = self.rng.next()
        if not self.disable_extra_networks:
            extra_networks.activate(self, self.hr_extra_network_data)
        self.calculate_hr_conds()
        told = {"x": samples, "noise": noise, "c": self.hr_c, "uc": self.hr_uc}
        processing_host.begin_hires_pass(self, told)
        noise = self.take_modified_noise(noise)
        steps = self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(self, samples, noise, self.hr_c, self.hr_uc, steps=steps)
        self.sampler = None
        journal.latents.append(samples.clone())
        self.is_hr_pass = False
        return DecodedSamples(sd_encoding.decode(samples))


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """img2img and inpainting.

    Stand-in: `init_images` are tensors (3, H, W) in 0..1 and `mask` is one (H, W), 1 where to paint; the hosts take
    pictures of PIL.
    """

    init_images: Any = None
    resize_mode: int = 0
    denoising_strength: float = 0.75
    image_cfg_scale: float | None = None
    mask: Any = None
    mask_round: bool = True
    inpainting_fill: int = 1
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    image_mask: Any = field(default=None, init=False)
    nmask: Any = field(default=None, init=False)
    init_latent: Any = field(default=None, init=False)
    image_conditioning: Any = field(default=None, init=False)
    mask_for_overlay: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = opts.initial_noise_multiplier

    def init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        """Encode the pictures; make `mask` (what to keep) and `nmask` (what to paint), each (C, H, W)."""
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        pictures = torch.stack(
            [functional.interpolate(one[None], (self.height, self.width))[0] for one in self.init_images]
        )
        if len(pictures) == 1:
            pictures = pictures.repeat(self.batch_size, 1, 1, 1)
        channels = shared.sd_model.latent_channels
        self.init_latent = sd_encoding.encode_image(pictures * 2 - 1, channels)
        if self.image_mask is not None:
            paint = functional.interpolate(self.image_mask[None, None].float(), self.init_latent.shape[2:], mode="area")
            paint = 1.0 - paint if self.inpainting_mask_invert else paint
            paint = paint.round() if self.mask_round else paint
            self.nmask = paint[0].repeat(channels, 1, 1)
            self.mask = 1.0 - self.nmask
            if self.inpainting_fill == 3:
                self.init_latent = self.init_latent * self.mask

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: Any,
        subseeds: Any,
        subseed_strength: float,
        prompts: Any,
    ) -> Any:
        """The end of a schedule, from the pictures' latents."""
        x = self.rng.next() * self.initial_noise_multiplier
        processing_host.begin_pass(self)
        self.announce(x=self.init_latent, noise=x, c=conditioning, uc=unconditional_conditioning)
        x = self.take_modified_noise(x)
        samples = self.sampler.sample_img2img(self, self.init_latent, x, conditioning, unconditional_conditioning)
        if self.mask is not None:
            blended = samples * self.nmask + self.init_latent * self.mask
            args = scripts.MaskBlendArgs(samples, self.nmask, self.init_latent, self.mask, blended)
            if self.scripts is not None:
                self.scripts.on_mask_blend(self, args)
            samples = args.blended_latent
        return samples
