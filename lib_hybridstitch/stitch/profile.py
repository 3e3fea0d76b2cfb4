"""How much it costs in distance not to ask the large model, by noise level; and where full passes help most.

Between two full passes velocities are extended along a line in λ, the logarithm of the signal-to-noise ratio. What that
misses at one step is the classical remainder of linear extrapolation, half the second derivative times the distances to
the two points it rests on; what becomes of it until the picture is finished depends on the noise level too. Both
were measured once, on the demo's pair (`python3 run.py bench profile`), and stand in `PROFILE`; what matters is
their shape over σ.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

EDGE = 1e-3
"""Keeps λ finite at σ = 1, where there is no signal."""
LONGEST = 5 / 28
"""Longest way between two full passes, as a share of the run: beyond that the remainder says too little."""
SECOND = 2 / 28
"""Where the second full pass is when less than half of the steps are full, as a share of the run: by trial the pass at
the next step is better spent later then, and not before."""


def log_snr(sigma: float) -> float:
    """λ(σ) = ln((1 − σ) / σ) of the rectified flow, finite at both ends."""
    return math.log((max(1.0 - sigma, 0.0) + EDGE) / (max(sigma, 0.0) + EDGE))


@dataclass(frozen=True)
class Profile:
    """What a step costs in distance when the large model does not compute it, by noise level.

    Args:
        sigmas: noise levels, ascending; values between them are interpolated, beyond them held.
        bend: root mean square of the velocity's second derivative in λ.
        disagreement: root mean square of v_large − v_small.
        lasting: how much of an error made at this level is left in the finished latent.
    """

    sigmas: tuple[float, ...]
    bend: tuple[float, ...]
    disagreement: tuple[float, ...]
    lasting: tuple[float, ...]

    def at(self, curve: Sequence[float], sigma: float) -> float:
        """The value of one of the curves at `sigma`."""
        if sigma <= self.sigmas[0]:
            return curve[0]
        for (low, below), (high, above) in itertools.pairwise(zip(self.sigmas, curve, strict=True)):
            if sigma <= high:
                return below + (above - below) * (sigma - low) / (high - low)
        return curve[-1]


PROFILE = Profile(
    sigmas=(0.19, 0.33, 0.45, 0.55, 0.625, 0.66, 0.75, 0.8, 0.82, 0.845, 0.88, 0.9, 0.917, 0.932, 0.947, 0.96, 0.975),
    bend=(0.35, 0.24, 0.9, 0.84, 0.97, 1.11, 2.2, 4.4, 5.3, 7.7, 21.7, 22.3, 17.2, 16.6, 12.1, 5.4, 2.2),
    disagreement=(0.63, 0.39, 0.32, 0.31, 0.3, 0.31, 0.37, 0.49, 0.57, 0.69, 1.02, 1.16, 1.24, 1.23, 1.1, 0.9, 0.74),
    lasting=(0.18, 0.15, 0.14, 0.15, 0.15, 0.15, 0.15, 0.27, 0.33, 0.58, 1.03, 0.95, 0.88, 0.81, 1.34, 1.85, 2.3),
)
"""Measured on the demo's pair: `benchmarks/results/profile.json`, rounded. Between the levels where it was measured,
what lasts is interpolated."""
DAMPED = 0.5
"""Exponent of `lasting` in placement, by trial (0, 0.3, 0.5, 0.6, 1): at 1 the end of the run is left too thin."""


def remainder(sigma: float, last: float, before: float, profile: Profile = PROFILE) -> float:
    """What linear extrapolation in λ to `sigma` misses, from full passes at the levels `last` and `before`."""
    way = _way(log_snr(sigma), log_snr(last), log_snr(before))
    return profile.at(profile.bend, sigma) * way


def _way(level: float, last: float, before: float) -> float:
    """Half the product of the distances to the two points that an extrapolation rests on, all in λ."""
    return 0.5 * abs((level - last) * (level - before))


def weight(sigmas: Sequence[float], step: int, exponent: float = 1.0) -> float:
    """What an error of the velocity at a step does to the picture: the step's length times how much of it lasts.

    Args:
        sigmas: noise levels that are evaluated, descending; the run ends at 0.
        exponent: of what lasts.
    """
    after = sigmas[step + 1] if step + 1 < len(sigmas) else 0.0
    return (sigmas[step] - after) * PROFILE.at(PROFILE.lasting, sigmas[step]) ** exponent


def place(sigmas: tuple[float, ...], full: int) -> tuple[int, ...]:
    """Choose which steps of a run are full passes, so that the expected error of all others is least.

    The first, a second one close by and the last are always among them: extrapolation needs two, and the last errors
    are seen as they are.

    Args:
        sigmas: noise levels that are evaluated, descending.
        full: how many full passes; fewer than three, or than a step in every `LONGEST` part of the run, become
            that many.

    Returns:
        step indices, ascending.
    """
    steps = len(sigmas)
    if steps <= 3 or full >= steps:
        return tuple(range(steps))
    second = 1 if 2 * full >= steps else max(1, round(steps * SECOND))
    best = _best(sigmas, second)
    used, step = max(full, min(best[-1])), steps - 1
    chosen: list[int] = []
    while step > second:
        chosen.append(step)
        step, used = best[step][used][1], used - 1
    return (0, second, *reversed(chosen))


@functools.lru_cache(maxsize=16)
def _best(sigmas: tuple[float, ...], second: int) -> tuple[dict[int, tuple[float, int]], ...]:
    """For every step as a full pass: how many there are up to it → the least expected error, and the pass before it.

    Dynamic programming over the steps, for every number of passes at once; the pass before the last one is taken to
    lie as far back in λ as the next one lies ahead, which keeps it quadratic.
    """
    strains = strained(sigmas)
    longest = max(2, math.ceil(len(sigmas) * LONGEST - 1e-9))
    best: list[dict[int, tuple[float, int]]] = [{} for _ in sigmas]
    best[second][2] = (0.0, 0)
    for here in range(second, len(sigmas)):
        for after in range(here + 1, min(here + longest, len(sigmas) - 1) + 1):
            more = missed(strains, here, after)
            for used, (error, _) in best[here].items():
                if error + more < best[after].get(used + 1, (math.inf, 0))[0]:
                    best[after][used + 1] = (error + more, here)
    return tuple(best)


def strained(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """Every step's λ, and what bending there does to the picture."""
    return [
        (log_snr(sigma), weight(sigmas, step, DAMPED) * PROFILE.at(PROFILE.bend, sigma))
        for step, sigma in enumerate(sigmas)
    ]


def missed(strains: Sequence[tuple[float, float]], here: int, after: int) -> float:
    """Expected error of the steps between two full passes, from what `strained` says of every step."""
    last = strains[here][0]
    before = 2 * last - strains[after][0]
    return sum(strain * _way(level, last, before) for level, strain in strains[here + 1 : after])
