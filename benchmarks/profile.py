"""Measure the curves of `stitch/profile.py` on the demo's pair.

    python3 run.py bench profile        # some minutes

Along the large model's own trajectories: how much its velocity bends, how far the small model is from it, and, by
nudging the latent at a step and sampling on, how much of an error made there lasts to the end.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.caches import CFG
from hybridstitch_demo.generate import Pair, Request, guided, load_pair, schedule
from hybridstitch_demo.measure import machine
from hybridstitch_demo.scenes import caption, combination
from lib_hybridstitch.engine.evaluation import Side
from lib_hybridstitch.mmdit.model import MMDiT
from lib_hybridstitch.plans.profile import log_snr

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
    side = Side(network)
    return guided(lambda call: side.full(call, network.config.patch_size, True), request)


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


def bend(path: Trajectory, index: int) -> float:
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
def measure(pair: Pair, count: int, every: int, device: torch.device) -> list[dict[str, float]]:
    """One row per noise level, the highest first.

    Args:
        count: pictures.
        every: steps from one measurement of `lasting`, which is dear, to the next.
        device: where the networks compute.
    """
    source = random.Random(SEED)
    prompts = tuple(caption(*combination(source, wanted=False)) for _ in range(count))
    request = Request(prompts, tuple(range(SEED, SEED + count)), cfg=CFG)
    velocity, small = (of_network(network.to(device), request) for network in (pair.large, pair.small))
    path = follow(velocity, request.noise().to(device), schedule(request))
    rows = []
    for index in tqdm(range(2, len(path.sigmas) - 1), desc="levels", file=sys.stderr):
        sigma, x = path.sigmas[index], path.latents[index]
        row = {"sigma": sigma, "bend": bend(path, index)}
        row["disagreement"] = rms(small(x, sigma) - path.velocities[index])
        if (index - 2) % every == 0:
            row["lasting"] = lasting(path, velocity, index)
        rows.append({key: round(value, 4) for key, value in row.items()})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write profile.json."""
    parser = argparse.ArgumentParser(prog="run.py bench profile", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--every", type=int, default=3, help="steps between two measurements of what lasts")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for profile.json")
    options = parser.parse_args(arguments)
    rows = measure(load_pair(), options.pictures, options.every, options.device)
    head = {
        "machine": machine(),
        "device": "cpu" if options.device.type == "cpu" else torch.cuda.get_device_name(options.device),
        "pictures": options.pictures,
        "seeds": [SEED, SEED + options.pictures - 1],
        "cfg": CFG,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "profile.json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
