"""Make pictures with the demo pair: text to latents by any of the methods, with samplers from diffusers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridstitch_demo.autoencoder import CHANNELS, FACTOR, PAIR, Autoencoder, load_autoencoder
from hybridstitch_demo.words import LENGTH, encode
from lib_hybridstitch.engine.evaluation import Evaluation, Model, Prediction
from lib_hybridstitch.engine.report import Report
from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import SettingsError
from lib_hybridstitch.mmdit.checkpoint import load
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import LARGE, Plan, Step
from lib_hybridstitch.plans.profile import Profile
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.prediction.resolver import Resolved, resolve
from lib_hybridstitch.settings import StitchSettings

SHIFT = 3.0
"""Shift of the schedule towards noise, SD3's own."""
SAMPLERS = ("euler", "heun", "dpmpp-2m", "unipc")
PROFILE = PAIR / "profile.json"
"""What is known of the pair's large model; it lies with the pair and is used for it alone."""


def shifted(level: float, shift: float = SHIFT) -> float:
    """The noise level, 0 to 1, that a shifted schedule has in the place of `level`."""
    return shift * level / (1 + (shift - 1) * level)


@dataclass(frozen=True)
class Pair:
    """The demo's models, ready for use in fp32."""

    large: MMDiT
    small: MMDiT
    autoencoder: Autoencoder


def load_pair(folder: Path = PAIR) -> Pair:
    """Load the trained pair and its autoencoder from `folder`."""
    large, small = (load(folder / f"{name}.safetensors", dtype=torch.float32) for name in ("large", "small"))
    large.config.check_pair(small.config)
    return Pair(large, small, load_autoencoder(folder / "autoencoder.safetensors"))


@dataclass(frozen=True)
class Request:
    """What to draw.

    Args:
        prompts: one per picture.
        seeds: one per picture; each decides its picture's noise whatever the batch.
        steps: sampler steps.
        cfg: classifier-free guidance scale; 1 leaves the unconditional stream out.
        size: edge of the pictures in pixels, a multiple of 16.
        sampler: one of `SAMPLERS`.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = 28
    cfg: float = 3.0
    size: int = 128
    sampler: str = "euler"

    def __post_init__(self) -> None:
        for name, value, low, high in (("steps", self.steps, 1, 150), ("size", self.size, 64, 512)):
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}, allowed are {low} to {high}.", name)
        if self.size % (2 * FACTOR):
            raise SettingsError(f"size is {self.size}, allowed are multiples of {2 * FACTOR}.", "size")
        if self.sampler not in SAMPLERS:
            raise SettingsError(f"sampler is {self.sampler!r}, allowed are {', '.join(SAMPLERS)}.", "sampler")

    def noise(self) -> Tensor:
        """Start latents (pictures, 16, size/8, size/8), each from its own seed."""
        edge = self.size // FACTOR
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        return torch.stack([torch.randn(CHANNELS, edge, edge, generator=source) for source in sources])


def scheduler(request: Request) -> Any:
    """Return diffusers' flow-matching scheduler for a request, its timesteps set (1000·σ)."""
    import diffusers

    multistep = {"dpmpp-2m": diffusers.DPMSolverMultistepScheduler, "unipc": diffusers.UniPCMultistepScheduler}
    if request.sampler in multistep:
        made = multistep[request.sampler](
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT, final_sigmas_type="zero"
        )
        made.set_timesteps(request.steps)
        return made
    if request.sampler == "heun":
        made = diffusers.FlowMatchHeunDiscreteScheduler(shift=SHIFT)
        made.set_timesteps(request.steps)
        return made
    made = diffusers.FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    made.set_timesteps(sigmas=[1 - step / request.steps for step in range(request.steps)])
    return made


def run_of(request: Request, profile: Profile | None = None) -> Run:
    """What a method must know of a request; a step of two evaluations counts once."""
    sigmas = [float(timestep) / 1000 for timestep in scheduler(request).timesteps]
    levels = tuple(sigma for index, sigma in enumerate(sigmas) if index == 0 or sigma != sigmas[index - 1])
    return Run(levels, guided=request.cfg != 1, profile=profile)


def setup_of(pair: Pair, request: Request) -> Setup:
    """What the times of a request depend on."""
    tokens = (request.size // (FACTOR * pair.large.config.patch_size)) ** 2
    streams = 1 if request.cfg == 1 else 2
    return Setup(pair.large.config, pair.small.config, tokens, LENGTH, len(request.prompts), streams)


def resolved(pair: Pair, request: Request, settings: StitchSettings, profile: Profile | None = None) -> Resolved:
    """The plan that settings come to in a request, and what it will do by counted operations."""
    return resolve(settings, run_of(request, profile), setup_of(pair, request))


def only(step: Step, request: Request) -> Plan:
    """The plan of a request whose steps are all alike: `LARGE` or `SMALL`."""
    sigmas = run_of(request).sigmas
    return Plan((step,) * len(sigmas), sigmas, f"{step.kind.word} only")


@dataclass(frozen=True)
class Result:
    """Pictures (count, 3, size, size) in 0..1, the latents they came from, and the engine's report.

    Args:
        ms: from noise to pictures, in milliseconds.
    """

    pictures: Tensor
    latents: Tensor
    report: Report
    ms: float


Progress = Callable[[int, int], None]
Velocity = Callable[[Evaluation], Tensor]
"""One evaluation → the velocity (rows, 16, size/8, size/8) of every row."""


@torch.inference_mode()
def generate(
    pair: Pair, request: Request, plan: Plan | None = None, progress: Progress | None = None, **options: Any
) -> Result:
    """Draw a request by a plan; by the large model alone without one.

    Args:
        progress: called after every evaluation with its number and how many there are.
        options: further arguments of the Stitcher (fp8_cache, use_cache).
    """
    started = time.perf_counter()
    large, small = Model(pair.large), Model(pair.small)
    stitcher = Stitcher(large, small, plan or only(LARGE, request), request.cfg, **options)
    x = sample(lambda call: stitcher.velocity(call).velocity, request, large.full_pass, progress)
    pictures = pair.autoencoder.decode(x)
    stitcher.finish()
    return Result(pictures, x, stitcher.report, 1000 * (time.perf_counter() - started))


def sample(
    velocity: Velocity,
    request: Request,
    full_pass: Callable[[Evaluation], Prediction],
    progress: Progress | None = None,
) -> Tensor:
    """Go from noise to latents (pictures, 16, size/8, size/8).

    Args:
        velocity: predicts each evaluation.
        full_pass: the large model's own, which every evaluation carries with it.
        progress: see `generate`.
    """
    denoise = guided(velocity, request, full_pass)
    sampler = scheduler(request)
    x = request.noise()
    for number, timestep in enumerate(sampler.timesteps):
        x = sampler.step(denoise(x, float(timestep) / 1000), timestep, x, return_dict=False)[0]
        if progress is not None:
            progress(number + 1, len(sampler.timesteps))
    return x


def guided(
    velocity: Velocity, request: Request, full_pass: Callable[[Evaluation], Prediction]
) -> Callable[[Tensor, float], Tensor]:
    """Return latent (pictures, ...) and σ → guided velocity, wherever the latent lies; cond rows first, then uncond."""
    count = len(request.prompts)
    streams = ("cond",) if request.cfg == 1 else ("cond", "uncond")
    context, pooled = encode([*request.prompts, *[""] * (count * (len(streams) - 1))])
    rows = tuple((image, stream) for stream in streams for image in range(count))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        levels = torch.full((len(rows),), sigma, device=x.device)
        text = context.to(x.device), pooled.to(x.device)
        found = velocity(Evaluation(x.repeat(len(streams), 1, 1, 1), levels, *text, rows, full_pass))
        if len(streams) == 1:
            return found
        cond, uncond = found.chunk(2)
        return uncond + request.cfg * (cond - uncond)

    return denoise


def batches(request: Request, size: int) -> Iterator[Request]:
    """Split a request into requests of at most `size` pictures."""
    for start in range(0, len(request.prompts), size):
        part = slice(start, start + size)
        yield replace(request, prompts=request.prompts[part], seeds=request.seeds[part])
