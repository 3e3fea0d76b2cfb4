"""Samplers that think in timesteps 1..999; they have no `get_sigmas`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from modules import sd_samplers_common
from modules.sd_samplers_cfg_denoiser import CFGDenoiserTimesteps, cleanup, prepare, table_of_alphas
from modules.sd_samplers_functions import ddim


class CompVisSampler(sd_samplers_common.Sampler):
    """A loop over timesteps."""

    def __init__(self, funcname: str, sd_model: Any) -> None:
        super().__init__(funcname)
        self.func, self.eta_option_field = ddim, "eta_ddim"
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_timesteps(self, p: Any, steps: int) -> Tensor:
        """Ascending timesteps."""
        return torch.clip(torch.arange(0, 1000, 1000 // steps) + 1, 0, 999)

    def _run(self, p: Any, x: Tensor, timesteps: Tensor, steps: int, args: dict[str, Any]) -> Tensor:
        loop = partial(self.func, self.model_wrap_cfg, x, timesteps, table_of_alphas(self), args, self.callback_state)
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
        self.initialize(p)
        self.last_latent = x
        args = self.extra_args(p, conditioning, unconditional_conditioning, image_conditioning)
        samples = self._run(p, x, self.get_timesteps(p, steps or p.steps), steps or p.steps, args)
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
        """img2img."""
        prepared = prepare(self, x)
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        timesteps = self.get_timesteps(p, steps)
        alpha = table_of_alphas(self)[timesteps[t_enc]]
        self.initialize(p)
        self.model_wrap_cfg.init_latent = self.last_latent = x
        args = self.extra_args(p, conditioning, unconditional_conditioning, image_conditioning)
        start = x * alpha.sqrt() + noise * (1 - alpha).sqrt()
        samples = self._run(p, start, timesteps[:t_enc], t_enc + 1, args)
        cleanup(prepared)
        return samples


samplers_data_timesteps = [sd_samplers_common.SamplerData("DDIM", partial(CompVisSampler, "ddim"), ["ddim"], {})]
VanillaStableDiffusionSampler = CompVisSampler
