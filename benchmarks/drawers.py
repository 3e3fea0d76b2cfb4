"""What draws in the race: our engine, diffusers' pipeline, and diffusers' network under a cache.

All go from the same noise over the same σ with the same text and guidance, and decode with the same autoencoder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.operations import counted
from hybridstitch_demo.autoencoder import Autoencoder
from hybridstitch_demo.generate import Pair, Request, generate, sample, scheduler
from hybridstitch_demo.measure import run_flops
from hybridstitch_demo.words import encode
from lib_hybridstitch.engine.evaluation import Evaluation, Prediction
from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.plans.plan import Plan


class NotRunError(HybridStitchError):
    """A contender cannot take part; the message says why and what to do."""


@dataclass(frozen=True)
class Drawing:
    """What a contender drew.

    Args:
        pictures: (pictures, 3, size, size) in 0..1.
        ms: from noise and prompts to pictures, all of them together, in milliseconds.
        operations: counted floating-point operations of all of them, autoencoder left out; None when not asked for.
    """

    pictures: Tensor
    ms: float
    operations: int | None


class Drawer(Protocol):
    """Draws requests."""

    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Draw a request; `count` asks for the operations, which may take longer."""
        ...


@dataclass(frozen=True)
class Stitched:
    """Our engine; `plan` makes the plan of a request."""

    pair: Pair
    plan: Callable[[Request], Plan]

    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Draw a request.

        Raises:
            RuntimeError: when the engine gave up, because the picture would then be the large model's.
        """
        result = generate(self.pair, request, self.plan(request))
        if result.report.failure:
            raise RuntimeError(result.report.failure)
        return Drawing(result.pictures, result.ms, run_flops(self.pair, result.report) if count else None)


@dataclass
class Clock:
    """The timestep (1000·σ) that is being computed, and which step of the run it is, for caches that go by them."""

    timestep: float = 1000.0
    step: int = -1


@torch.inference_mode()
def _drawing(network: Any, autoencoder: Autoencoder, latents: Callable[[], Tensor], count: bool) -> Drawing:
    """Time what makes the latents (pictures, 16, h, w) with a network, and their decoding."""
    with counted(network) if count else nullcontext() as operations:
        started = time.perf_counter()
        pictures = autoencoder.decode(latents())
        ms = 1000 * (time.perf_counter() - started)
    return Drawing(pictures, ms, operations.total if operations else None)


@dataclass(frozen=True)
class Cached:
    """diffusers' network in our sampling loop.

    Args:
        network: diffusers' `SD3Transformer2DModel`, a cache applied to it.
        autoencoder: turns latents into pictures.
        begin: called before every request, to empty the cache.
        clock: told the timestep of every evaluation.
    """

    network: Any
    autoencoder: Autoencoder
    begin: Callable[[], None]
    clock: Clock

    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Draw a request."""

        def latents() -> Tensor:
            self.begin()
            self.clock.step = -1
            return sample(self._velocity, request, lambda call: Prediction(self._velocity(call)))

        return _drawing(self.network, self.autoencoder, latents, count)

    def _velocity(self, evaluation: Evaluation) -> Tensor:
        """The velocity (rows, 16, H, W); the rows without prompt go first, as diffusers' pipelines have them."""
        half = len(evaluation.rows) // 2
        timestep = 1000 * evaluation.sigma
        self.clock.timestep = float(timestep[0])
        self.clock.step += 1
        found: Tensor = self.network(
            hidden_states=evaluation.x.roll(half, 0),
            encoder_hidden_states=evaluation.context.roll(half, 0),
            pooled_projections=evaluation.pooled.roll(half, 0),
            timestep=timestep,
            return_dict=False,
        )[0]
        return found.roll(-half, 0)


class Pipeline:
    """diffusers' own StableDiffusion3 pipeline with the large model's weights; our text and autoencoder around it.

    Args:
        network: diffusers' `SD3Transformer2DModel`.
        autoencoder: turns latents into pictures.

    Raises:
        NotRunError: when what the pipeline needs is not installed.
    """

    def __init__(self, network: Any, autoencoder: Autoencoder) -> None:
        from diffusers import StableDiffusion3Pipeline
        from diffusers.utils import is_transformers_available

        if not is_transformers_available():
            raise NotRunError(
                "diffusers' pipeline needs the package transformers: install benchmarks/requirements.txt."
            )
        parts = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
        self.make = lambda chosen: StableDiffusion3Pipeline(network, chosen, **dict.fromkeys(parts))
        self.network = network
        self.autoencoder = autoencoder

    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Draw a request."""
        return _drawing(self.network, self.autoencoder, lambda: self._latents(request), count)

    def _latents(self, request: Request) -> Tensor:
        """Latents (pictures, 16, size/8, size/8)."""
        context, pooled = encode(list(request.prompts))
        no_context, no_pooled = encode([""] * len(request.prompts))
        pipeline = self.make(scheduler(request))
        pipeline.set_progress_bar_config(disable=True)
        latents: Tensor = pipeline(
            prompt_embeds=context,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=no_context,
            negative_pooled_prompt_embeds=no_pooled,
            sigmas=[1 - step / request.steps for step in range(request.steps)],  # the scheduler shifts them
            guidance_scale=request.cfg,
            latents=request.noise(),
            height=request.size,
            width=request.size,
            output_type="latent",
            return_dict=False,
        )[0]
        return latents
