"""Sampling passes as a WebUI makes them: any noise levels, from noise or from a picture, inside a mask.

The loops are the embedded WebUI's, but for Euler a: here it is the one for rectified flow. The older one takes the
noise to lie on top of the picture, which is not so in SD3's flow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridstitch_demo.generate import Pair, Request, guided
from hybridstitch_demo.webui.common.modules.rng import ImageRNG
from hybridstitch_demo.webui.common.modules.sd_samplers_functions import dpmpp_2m, euler, heun
from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.engine.report import Report
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.plans.plan import Plan

Denoiser = Callable[..., Tensor]


@dataclass(frozen=True)
class Start:
    """What a pass begins from, beside its noise.

    Args:
        latents: (pictures, 16, h, w) of the pictures; zeros where there are none.
        paint: (h, w), 1 where the picture is painted anew and 0 where it is kept; None to paint everywhere.
    """

    latents: Tensor
    paint: Tensor | None = None

    def region(self, patch: int) -> Tensor | None:
        """The painted tokens (N,) bool, as the adapters tell the engine; None without a mask."""
        if self.paint is None:
            return None
        painted = self.paint.unfold(0, patch, patch).unfold(1, patch, patch)
        return painted.amax((2, 3)).flatten() > 0


@torch.inference_mode()
def sample(
    pair: Pair,
    request: Request,
    sampler: str,
    plan: Plan,
    levels: tuple[float, ...],
    start: Start,
    computed: Collection[int] | None = None,
) -> tuple[Tensor, Report]:
    """Draw one batch by a plan.

    Args:
        request: prompts, seeds, guidance and size; its steps and sampler do not count.
        sampler: Euler, Heun, DPM++ 2M or Euler a.
        plan: of the large model, or of both.
        levels: the noise levels, descending to the final 0.
        start: what the pass begins from.
        computed: the steps that are evaluated, the first among them; the others hold what was last predicted of the
            finished picture. Euler then goes straight from one of these levels to the next, as with fewer steps, and
            Euler a does so with the very noise of all steps.

    Returns:
        latents (pictures, 16, h, w), and the engine's report.

    Raises:
        RuntimeError: when the engine gave up, because the picture would then be the large model's.
    """
    large = Model(pair.large)
    region = start.region(pair.large.config.patch_size)
    stitcher = Stitcher(large, Model(pair.small), plan, request.cfg, region=region)
    velocity = guided(lambda call: stitcher.velocity(call).velocity, request, large.full_pass)
    held: dict[str, Tensor] = {}
    chosen = None if computed is None else {levels[step] for step in computed}

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        """What a latent would be without noise, as a host's samplers ask for it; blended as in A1111."""
        level = min(levels, key=lambda known: abs(known - float(sigma[0])))  # the loops have it in fp32
        if chosen is not None and level not in chosen:
            return held["clean"]
        clean = x - level * velocity(x, level)
        if start.paint is not None:
            clean = torch.lerp(start.latents, clean, start.paint)
        held["clean"] = clean
        return clean

    noise = ImageRNG(start.latents.shape[1:], request.seeds).next
    x = torch.lerp(start.latents, noise(), levels[0])
    loops: dict[str, Callable[..., Tensor]] = {"Euler": euler, "Heun": heun, "DPM++ 2M": dpmpp_2m}
    sigmas = torch.tensor(levels)
    if sampler in loops:
        x = loops[sampler](denoise, x, sigmas, {}, _nobody)
    else:
        x = euler_ancestral(denoise, x, sigmas, noise)
    stitcher.finish()
    if stitcher.report.failure:
        raise RuntimeError(stitcher.report.failure)
    return x, stitcher.report


def _nobody(_told: dict[str, Any]) -> None:
    """Nobody listens to the loops."""


def euler_ancestral(model: Denoiser, x: Tensor, sigmas: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """Euler with fresh noise in every step of a rectified flow, eta 1.

    A step goes below the level that it heads for, and noise takes it back up; the picture's share shrinks with it,
    so that x stays (1 − σ)·x0 + σ·noise. Source: ComfyUI, comfy/k_diffusion/sampling.py, sample_euler_ancestral_RF.
    """
    for sigma, following in itertools.pairwise(sigmas):
        clean = model(x, sigma.expand(len(x)))
        down = following * following / sigma
        x = torch.lerp(clean, x, down / sigma)
        if following > 0:
            kept = (1 - following) / (1 - down)
            x = kept * x + (following**2 - (kept * down) ** 2).sqrt() * noise()
    return x
