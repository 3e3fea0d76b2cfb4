"""Measure the profile of the demo's large model: how its velocity changes with noise, and what becomes of an error.

    python3 run.py bench profile        # some minutes

Along the large model's own trajectories: the second derivative of its velocity, and, by nudging the latent at a step
and sampling on, how much of an error made there lasts to the end. What is written is a profile as the extension reads
it; `hybridstitch_demo/pair/profile.json` was made so.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.caches import CFG
from hybridstitch_demo.generate import PROFILE, Pair, Request, guided, load_pair, run_of
from hybridstitch_demo.measure import machine
from hybridstitch_demo.scenes import caption, combination
from lib_hybridstitch.engine.evaluation import Model
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.plans.profile import Profile, log_snr

RESULTS = Path(__file__).parent / "results"
SEED = 77
NUDGE = 0.05
"""Root mean square of the nudge, against 1 of a latent."""

Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Trajectory:
    """The large model's trajectory: latents and guided velocities at every noise level."""

    sigmas: tuple[float, ...]
    latents: list[Tensor]
    velocities: list[Tensor]
    end: Tensor

    def step(self, index: int) -> float:
        """Length of a step in σ, negative."""
        return (self.sigmas[index + 1] if index + 1 < len(self.sigmas) else 0.0) - self.sigmas[index]


def of_network(network: MMDiT, request: Request) -> Velocity:
    """Latent and σ → velocity with guidance, by one network alone."""
    model = Model(network)
    return guided(lambda call: model.full_pass(call).velocity, request, model.full_pass)


def follow(velocity: Velocity, noise: Tensor, sigmas: tuple[float, ...]) -> Trajectory:
    """Sample by Euler steps and keep the way."""
    path = Trajectory(sigmas, [noise], [], noise)
    for index, sigma in enumerate(sigmas):
        path.velocities.append(velocity(path.latents[-1], sigma))
        path.latents.append(path.latents[-1] + path.step(index) * path.velocities[-1])
    return Trajectory(sigmas, path.latents[:-1], path.velocities, path.latents[-1])


def rms(field: Tensor) -> float:
    """Root mean square per picture, averaged over the pictures."""
    return float(field.pow(2).mean((1, 2, 3)).sqrt().mean())


def change(path: Trajectory, index: int) -> float:
    """Second derivative of the velocity in λ at an inner step, by divided differences."""
    before, here, after = (log_snr(path.sigmas[at]) for at in (index - 1, index, index + 1))
    first, middle, last = path.velocities[index - 1 : index + 2]
    slopes = (last - middle) / (after - here), (middle - first) / (here - before)
    return rms(2 * (slopes[0] - slopes[1]) / (after - before))


def lasting(path: Trajectory, velocity: Velocity, index: int) -> float:
    """What is left at the end of an error made at a step, in the direction of what extrapolation would miss there."""
    at = [log_snr(path.sigmas[index - back]) for back in (0, 1, 2)]
    slope = (path.velocities[index - 1] - path.velocities[index - 2]) / (at[1] - at[2])
    missed = path.velocities[index - 1] + slope * (at[0] - at[1]) - path.velocities[index]
    nudge = missed * (NUDGE / missed.pow(2).mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-9))
    x = path.latents[index] + path.step(index) * path.velocities[index] + nudge
    for later in range(index + 1, len(path.sigmas)):
        x = x + path.step(later) * velocity(x, path.sigmas[later])
    return rms(x - path.end) / NUDGE


@torch.inference_mode()
def measure(pair: Pair, count: int, every: int, device: torch.device, name: str, checkpoint: str) -> Profile:
    """The profile of the pair's large model, of the inner steps of a run.

    Args:
        count: pictures.
        every: steps from one measurement of `lasting`, which is dear, to the next; those between are interpolated.
        device: where the network computes.
        name, checkpoint: see `Profile`.
    """
    source = random.Random(SEED)
    prompts = tuple(caption(*combination(source, wanted=False)) for _ in range(count))
    request = Request(prompts, tuple(range(SEED, SEED + count)), cfg=CFG)
    velocity = of_network(pair.large.to(device), request)
    path = follow(velocity, request.noise().to(device), run_of(request).sigmas)
    inner = range(len(path.sigmas) - 2, 1, -1)  # σ ascends
    changes, lasts = [], {}
    for index in tqdm(inner, desc="levels", file=sys.stderr):
        changes.append(round(change(path, index), 4))
        if index in (inner[0], inner[-1]) or (index - 2) % every == 0:
            lasts[path.sigmas[index]] = round(lasting(path, velocity, index), 4)
    sigmas = tuple(round(path.sigmas[index], 4) for index in inner)
    sparse = Profile(name, checkpoint, tuple(lasts), (), tuple(lasts.values()))
    lasting_everywhere = tuple(round(sparse.at(sparse.lasting, sigma), 4) for sigma in sigmas)
    return Profile(name, checkpoint, sigmas, tuple(changes), lasting_everywhere)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write profile.json."""
    parser = argparse.ArgumentParser(prog="run.py bench profile", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--every", type=int, default=3, help="steps between two measurements of what lasts")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--name", default="measured with the demo pair", help="name of the profile (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for profile.json")
    options = parser.parse_args(arguments)
    checkpoint = Profile.read(PROFILE).checkpoint
    found = measure(load_pair(), options.pictures, options.every, options.device, options.name, checkpoint)
    on = "cpu" if options.device.type == "cpu" else torch.cuda.get_device_name(options.device)
    measured = {
        "machine": machine(),
        "device": on,
        "pictures": options.pictures,
        "seeds": [SEED, SEED + options.pictures - 1],
        "cfg": CFG,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(found), "measured": measured}, indent=1)
    (options.out / "profile.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
