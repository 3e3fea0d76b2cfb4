"""Forge's denoiser: hands an evaluation to the sampling function."""

from __future__ import annotations

from typing import Any

import torch
from backend.sampling.sampling_function import sampling_cleanup, sampling_function, sampling_prepare
from modules import extra_networks, prompt_parser, scripts, sd_models, sd_samplers_common, shared
from modules.script_callbacks import (
    AfterCFGCallbackParams,
    CFGDenoiserParams,
    cfg_after_cfg_callback,
    cfg_denoiser_callback,
)
from modules.shared import opts, state
from modules_forge import forge_version
from torch import Tensor, nn


def prepare(sampler: Any, x: Tensor) -> Any:
    """Bring the models to the device; returns the unet of this pass."""
    sampler.steps_ahead = int(forge_version.is_ersatz())
    unet = sampler.model_wrap.inner_model.forge_objects.unet
    sampling_prepare(unet, x=x)
    return unet


def cleanup(prepared: Any) -> None:
    """After sampling."""
    sampling_cleanup(prepared)


def noise_latent(sampler: Any, x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """A latent at a noise level."""
    return sampler.model_wrap.predictor.noise_scaling(sigma, noise, x)


def table_of_alphas(sampler: Any) -> Tensor:
    """For samplers of timesteps."""
    return sampler.model_wrap.inner_model.alphas_cumprod


def apply_refiner(denoiser: Any, x: Tensor) -> bool:
    """Swap the checkpoint at a share of the steps; every patch of the unet is gone with the model."""
    p = denoiser.p
    info = p.refiner_checkpoint_info
    if info is None or (p.refiner_switch_at is not None and denoiser.step / denoiser.total_steps < p.refiner_switch_at):
        return False
    if shared.sd_model.sd_checkpoint_info == info:
        return False
    p.extra_generation_params.update({"Refiner": info.short_title, "Refiner switch at": p.refiner_switch_at})
    sampling_cleanup(shared.sd_model.forge_objects.unet)
    sd_models.switch_checkpoint(info)
    if not p.disable_extra_networks:
        extra_networks.activate(p, p.extra_network_data)
    if forge_version.is_ersatz():
        p.announce(x=x)
    p.setup_conds()
    denoiser.update_inner_model()
    sampling_prepare(shared.sd_model.forge_objects.unet, x=x)
    return True


class ForgeScheduleLinker(nn.Module):
    """A schedule over the predictor's noise levels; `inner_model` is the whole model."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor
        self.inner_model: Any = None

    @property
    def sigmas(self) -> Tensor:
        """All noise levels, ascending."""
        return self.predictor.sigmas

    def get_sigmas(self, n: int) -> Tensor:
        """ "Automatic": ends at 0 twice, which makes the last step divide by 0."""
        times = torch.linspace(len(self.sigmas) - 1, 0, n)
        return torch.cat([self.t_to_sigma(times), self.sigmas.new_zeros(1)])

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        """σ → 0..1000."""
        return self.predictor.timestep(sigma)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """0..1000 → σ."""
        return self.predictor.sigma(t)


class CFGDenoiser(nn.Module):
    """Denoise a batch."""

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler: Any = sampler
        self.p: Any = None
        self.model_wrap: Any = None
        self.mask: Any = None
        self.nmask: Any = None
        self.init_latent: Any = None
        self.steps: Any = None
        self.total_steps: Any = None
        self.step = 0
        self.mask_before_denoising = self.classic_ddim_eps_estimation = False

    @property
    def inner_model(self) -> Any:
        """What the sampler hands latents to; each kind of sampler has its own."""
        raise NotImplementedError

    def update_inner_model(self) -> None:
        """The model was swapped: take its text and wrapper anew."""
        self.model_wrap = None
        cond, uncond = self.p.get_conds()
        self.sampler.sampler_extra_args.update(cond=cond, uncond=uncond)

    def _scale(self, sigma: Tensor, cond_scale: float, s_min_uncond: float) -> float:
        if self.p.is_hr_pass:
            cond_scale = self.p.hr_cfg
        if opts.skip_early_cond > 0 and self.step / self.total_steps <= opts.skip_early_cond:
            self.p.extra_generation_params["Skip Early CFG"] = opts.skip_early_cond
            return 1.0
        if (self.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond:
            self.p.extra_generation_params["NGMS"] = s_min_uncond
            return 1.0
        return cond_scale

    def _noisy_original(self, sigma: Tensor) -> Tensor:
        """The kept region at this noise level; the noise is each image's own, new at every evaluation."""
        source = [torch.Generator().manual_seed(seed * 1000 + self.step) for seed in self.p.seeds]
        noise = torch.stack([torch.randn(self.init_latent.shape[1:], generator=one) for one in source])
        predictor = self.inner_model.inner_model.forge_objects.unet.model.predictor
        return predictor.noise_scaling(sigma.view(-1, 1, 1, 1), noise, self.init_latent)

    def forward(
        self, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, cond_scale: float, s_min_uncond: float, image_cond: Any
    ) -> Tensor:
        """Denoised latents (images, C, H, W), or the noise for samplers of timesteps; sigma (images,)."""
        if state.interrupted or state.skipped:
            if forge_version.is_ersatz():
                sd_models.unload_model_weights()
            raise sd_samplers_common.InterruptedException
        if self.classic_ddim_eps_estimation:
            alphas = self.inner_model.inner_model.alphas_cumprod
            sigma = ((1 - alphas) / alphas).sqrt()[sigma.round().long().clip(0, len(alphas) - 1)]
            x = x * (sigma**2 + 1.0).sqrt().view(-1, 1, 1, 1)
        if apply_refiner(self, x):
            cond, uncond = (self.sampler.sampler_extra_args[key] for key in ("cond", "uncond"))
        composition, cond = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        negative = None if uncond is None else prompt_parser.reconstruct_cond_batch(uncond, self.step)
        if self.mask is not None:
            x = x * self.nmask + self._noisy_original(sigma) * self.mask
        params = CFGDenoiserParams(
            x, image_cond, sigma, state.sampling_step, state.sampling_steps, cond, negative, self
        )
        cfg_denoiser_callback(params)
        scale = self._scale(sigma, cond_scale, s_min_uncond)
        denoised, _, _ = sampling_function(self, params, scale, composition)
        if self.mask is not None:
            blended = denoised * self.nmask + self.init_latent * self.mask
            args = scripts.MaskBlendArgs(denoised, self.nmask, self.init_latent, self.mask, blended, self, sigma)
            if self.p.scripts is not None:
                self.p.scripts.on_mask_blend(self.p, args)
            denoised = args.blended_latent
        self.sampler.last_latent = denoised
        sd_samplers_common.store_latent(denoised)
        after = AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        cfg_after_cfg_callback(after)
        self.step += 1
        if self.classic_ddim_eps_estimation:
            return (x - after.x) / sigma.view(-1, 1, 1, 1)
        return after.x


class CFGDenoiserKDiffusion(CFGDenoiser):
    """For samplers of σ."""

    @property
    def inner_model(self) -> Any:
        """The schedule, with the model in it."""
        if self.model_wrap is None:
            self.model_wrap = ForgeScheduleLinker(shared.sd_model.forge_objects.unet.model.predictor)
            self.model_wrap.inner_model = shared.sd_model
        return self.model_wrap


class CompVisTimestepsDenoiser(nn.Module):
    """Holds the model for samplers of timesteps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model
        self.inner_model.alphas_cumprod = 1.0 / (model.forge_objects.unet.model.predictor.sigmas**2.0 + 1.0)


class CFGDenoiserTimesteps(CFGDenoiser):
    """For samplers of timesteps, which Forge translates to σ."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.classic_ddim_eps_estimation = True

    @property
    def inner_model(self) -> Any:
        """The model's holder."""
        if self.model_wrap is None:
            self.model_wrap = CompVisTimestepsDenoiser(shared.sd_model)
        return self.model_wrap
