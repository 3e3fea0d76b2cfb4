"""A1111's guidance: all rows of an evaluation, cond first, in as few calls as their lengths allow."""

from __future__ import annotations

from typing import Any

import torch
from modules import prompt_parser, scripts, sd_models, sd_samplers_common, shared
from modules.script_callbacks import (
    AfterCFGCallbackParams,
    CFGDenoisedParams,
    CFGDenoiserParams,
    cfg_after_cfg_callback,
    cfg_denoised_callback,
    cfg_denoiser_callback,
)
from modules.shared import opts, state
from torch import Tensor, nn


def prepare(sampler: Any, x: Tensor) -> None:
    """Nothing: A1111's models are where they compute."""


def cleanup(prepared: None) -> None:
    """Nothing."""


def noise_latent(sampler: Any, x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """A latent at a noise level."""
    return shared.sd_model.add_noise_to_latent(x, noise, sigma)


def table_of_alphas(sampler: Any) -> Tensor:
    """For samplers of timesteps."""
    return shared.sd_model.alphas_cumprod


def apply_refiner(denoiser: Any, sigma: Tensor) -> bool:
    """Swap the checkpoint when the noise level is low enough; returns whether that happened now."""
    p = denoiser.p
    table = getattr(denoiser.inner_model, "sigmas", None)
    place = sigma.max() if table is None else (table - sigma.max()).abs().argmin()
    done = (999 - float(place)) / 1000
    info = p.refiner_checkpoint_info
    if info is None or (p.refiner_switch_at is not None and done < p.refiner_switch_at):
        return False
    if shared.sd_model.sd_checkpoint_info == info:
        return False
    p.extra_generation_params.update({"Refiner": info.short_title, "Refiner switch at": p.refiner_switch_at})
    sd_models.reload_model_weights(info=info)
    p.setup_conds()
    denoiser.update_inner_model()
    return True


class CFGDenoiser(nn.Module):
    """Denoise a batch under two prompts and combine them."""

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
        self.cond_scale_miltiplier = 1.0
        self.mask_before_denoising = False

    @property
    def inner_model(self) -> Any:
        """What the sampler hands latents to; each kind of sampler has its own."""
        raise NotImplementedError

    def update_inner_model(self) -> None:
        """The model was swapped: take its text and wrapper anew."""
        self.model_wrap = None
        cond, uncond = self.p.get_conds()
        self.sampler.sampler_extra_args.update(cond=cond, uncond=uncond)

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        """Denoised latents from what the model gave."""
        return x_out

    def _blend(self, latent: Tensor, sigma: Tensor) -> Tensor:
        blended = latent * self.nmask + self.init_latent * self.mask
        args = scripts.MaskBlendArgs(latent, self.nmask, self.init_latent, self.mask, blended, self, sigma)
        if self.p.scripts is not None:
            self.p.scripts.on_mask_blend(self.p, args)
        return args.blended_latent

    def _skip_uncond(self, sigma: Tensor, s_min_uncond: float) -> bool:
        if opts.skip_early_cond != 0.0 and self.step / self.total_steps <= opts.skip_early_cond:
            self.p.extra_generation_params["Skip Early CFG"] = opts.skip_early_cond
            return True
        if (self.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond:
            self.p.extra_generation_params["NGMS"] = s_min_uncond
            return True
        return False

    def _calls(self, x: Tensor, sigma: Tensor, cond: Any, uncond: Any, images: int) -> Tensor:
        """All rows through the model; uncond None leaves its rows out."""
        parts = [cond] if uncond is None else [cond, uncond]
        joined = len({part.shape[1] for part in parts}) == 1
        if joined:
            parts = [{key: torch.cat([part[key] for part in parts]) for key in cond}]
        size = images if joined else images * (2 if opts.batch_cond_uncond else 1)
        results, row = [], 0
        for number, part in enumerate(parts):
            rows = part["crossattn"].shape[0]
            whole = (joined and opts.batch_cond_uncond) or number == 1
            for begin in range(0, rows, rows if whole else size):
                end = min(begin + (rows if whole else size), rows)
                chosen = {key: value[begin:end] for key, value in part.items()}
                results.append(
                    self.inner_model(x[row : row + end - begin], sigma[row : row + end - begin], cond=chosen)
                )
                row += end - begin
        return torch.cat(results)

    def forward(
        self, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, cond_scale: float, s_min_uncond: float, image_cond: Any
    ) -> Tensor:
        """Denoised latents (images, C, H, W); sigma (images,)."""
        if state.interrupted or state.skipped:
            raise sd_samplers_common.InterruptedException
        if apply_refiner(self, sigma):
            cond, uncond = (self.sampler.sampler_extra_args[key] for key in ("cond", "uncond"))
        conds_list, tensor = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        negative = prompt_parser.reconstruct_cond_batch(uncond, self.step)
        if self.mask_before_denoising and self.mask is not None:
            x = self._blend(x, sigma)
        images = len(conds_list)
        order = torch.tensor([i for i, parts in enumerate(conds_list) for _ in parts] + list(range(images)))
        params = CFGDenoiserParams(
            x[order], image_cond, sigma[order], state.sampling_step, state.sampling_steps, tensor, negative, self
        )
        cfg_denoiser_callback(params)
        skip = self._skip_uncond(sigma, s_min_uncond)
        rows = slice(-images) if skip else slice(None)
        x_in, negative = params.x[rows], params.text_uncond
        x_out = self._calls(x_in, params.sigma[rows], params.text_cond, None if skip else negative, images)
        firsts = torch.tensor([parts[0][0] for parts in conds_list])
        if skip:
            x_out = torch.cat([x_out, x_out[firsts]])
        cfg_denoised_callback(CFGDenoisedParams(x_out, state.sampling_step, state.sampling_steps, self.inner_model))
        scale = 1.0 if skip else cond_scale * self.cond_scale_miltiplier
        denoised = x_out[-images:].clone()
        for image, parts in enumerate(conds_list):
            for row, weight in parts:
                denoised[image] += (x_out[row] - x_out[len(x_out) - images + image]) * (weight * scale)
        if not self.mask_before_denoising and self.mask is not None:
            denoised = self._blend(denoised, sigma)
        self.sampler.last_latent = self.get_pred_x0(params.x[firsts], x_out[firsts], sigma)
        sd_samplers_common.store_latent(self.get_pred_x0(params.x[firsts], denoised, sigma))
        after = AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        cfg_after_cfg_callback(after)
        self.step += 1
        return after.x


class CFGDenoiserKDiffusion(CFGDenoiser):
    """For samplers of σ."""

    @property
    def inner_model(self) -> Any:
        """The model under k-diffusion's call."""
        if self.model_wrap is None:
            self.model_wrap = shared.sd_model.create_denoiser()
        return self.model_wrap


class CompVisTimestepsDenoiser(nn.Module):
    """The model under the call of samplers of timesteps, which go to it as if they were σ."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, x: Tensor, timesteps: Tensor, cond: Any) -> Tensor:
        """What the sampler takes for noise."""
        return self.inner_model.apply_model(x, timesteps, cond)


class CFGDenoiserTimesteps(CFGDenoiser):
    """For samplers of timesteps."""

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.alphas, self.mask_before_denoising = shared.sd_model.alphas_cumprod, True

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        """Denoised latents, if the model had given noise."""
        alpha = self.alphas[sigma.long()].view(-1, 1, 1, 1)
        return (x_in - (1 - alpha).sqrt() * x_out) / alpha.sqrt()

    @property
    def inner_model(self) -> Any:
        """The model under these samplers' call."""
        if self.model_wrap is None:
            self.model_wrap = CompVisTimestepsDenoiser(shared.sd_model)
        return self.model_wrap
