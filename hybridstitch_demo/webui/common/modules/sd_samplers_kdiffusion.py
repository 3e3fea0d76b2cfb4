"""Samplers that think in σ."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from modules import sd_samplers_common, sd_schedulers
from modules.sd_samplers_cfg_denoiser import CFGDenoiserKDiffusion, cleanup, noise_latent, prepare
from modules.sd_samplers_functions import STRAIGHT

samplers_k_diffusion: list[tuple[str, str, list[str], dict[str, Any]]] = [
    ("DPM++ 2M", "sample_dpmpp_2m", ["k_dpmpp_2m"], {"scheduler": "karras"}),
    ("DPM++ SDE", "sample_dpmpp_sde", ["k_dpmpp_sde"], {"scheduler": "karras", "second_order": True}),
    ("Euler a", "sample_euler_ancestral", ["k_euler_a"], {"uses_ensd": True}),
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("Heun", "sample_heun", ["k_heun"], {"second_order": True}),
]


class KDiffusionSampler(sd_samplers_common.Sampler):
    """A loop over σ."""

    def __init__(self, funcname: str, sd_model: Any, options: Any = None) -> None:
        super().__init__(funcname)
        self.func = STRAIGHT[funcname]
        self.options = options or {}
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        """The schedule of a number of steps, with the final 0; writes infotext on its way."""
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        if name == "Automatic":
            name = self.config.options.get("scheduler")
        scheduler = sd_schedulers.schedulers_map.get(name)
        if p.sampler_noise_scheduler_override:
            return p.sampler_noise_scheduler_override(steps).cpu()
        if scheduler is None or scheduler.function is None:
            return self.model_wrap.get_sigmas(steps).cpu()
        key = "Hires schedule type" if p.is_hr_pass else "Schedule type"
        if not p.is_hr_pass or scheduler.label != p.extra_generation_params.get("Schedule type"):
            p.extra_generation_params[key] = scheduler.label
        table = self.model_wrap.sigmas
        kwargs = {"inner_model": self.model_wrap} if scheduler.need_inner_model else {}
        return scheduler.function(steps, float(table[0]), float(table[-1]), **kwargs).cpu()

    def _run(self, p: Any, x: Tensor, sigmas: Tensor, steps: int, args: dict[str, Any], more: dict[str, Any]) -> Tensor:
        loop = partial(self.func, self.model_wrap_cfg, x, sigmas, args, self.callback_state, **more)
        return self.launch_sampling(steps, loop)

    def sample(
        self,
        p: Any,
        x: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """txt2img."""
        prepared = prepare(self, x)
        sigmas = self.get_sigmas(p, steps or p.steps)
        x = noise_latent(self, torch.zeros_like(x), x, sigmas[0])
        more = self.initialize(p)
        self.last_latent = x
        args = self.extra_args(p, conditioning, unconditional_conditioning, image_conditioning)
        samples = self._run(p, x, sigmas, steps or p.steps, args, more)
        cleanup(prepared)
        return samples

    def sample_img2img(
        self,
        p: Any,
        x: Tensor,
        noise: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """img2img and the second pass of hires: the last part of a schedule."""
        prepared = prepare(self, x)
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)[steps - t_enc - 1 :]
        start = noise_latent(self, x, noise, sigmas[0])
        more = self.initialize(p)
        self.model_wrap_cfg.init_latent = self.last_latent = x
        args = self.extra_args(p, conditioning, unconditional_conditioning, image_conditioning)
        samples = self._run(p, start, sigmas, t_enc + 1, args, more)
        cleanup(prepared)
        return samples


samplers_data_k_diffusion = [
    sd_samplers_common.SamplerData(label, partial(KDiffusionSampler, funcname), aliases, options)
    for label, funcname, aliases, options in samplers_k_diffusion
]
k_diffusion_samplers_map = {one.name: one for one in samplers_data_k_diffusion}
