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
LONGEST = 8 / 28
"""Longest way between two full passes, as a share of the run: beyond that the remainder says too little."""
LAYOUT = 0.91
"""Noise level down to which the layout is decided: an error made there may tip the picture into another one, so every
step is full where at least `DENSE_SHARE` of all are."""
DENSE_SHARE = 0.39
SECOND = 2 / 28
"""Where the second full pass is when fewer are full, as a share of the run: by trial the pass at the next step is
better spent later then."""
NOISY = 0.85
CAUTION = 0.5
"""Share of the way along the line that an extension goes above the noise level `NOISY`, where velocities bend most."""


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
    sigmas=(
        0.188, 0.265, 0.333, 0.395, 0.45, 0.5, 0.545, 0.587, 0.625, 0.66, 0.692, 0.722, 0.75, 0.776, 0.8, 0.823,
        0.844, 0.864, 0.882, 0.9, 0.917, 0.932, 0.947, 0.962, 0.975,
    ),
    bend=(
        0.19, 0.12, 0.16, 0.19, 0.27, 0.34, 0.35, 0.39, 0.51, 0.76, 0.95, 1.2, 1.4, 2.4, 3.5, 4.8, 5.8, 7.5, 11.2,
        16.3, 19.8, 17.8, 11.1, 5.8, 2.6,
    ),
    disagreement=(
        0.43, 0.31, 0.25, 0.22, 0.2, 0.19, 0.18, 0.18, 0.18, 0.19, 0.19, 0.21, 0.23, 0.26, 0.31, 0.38, 0.47, 0.57,
        0.69, 0.85, 0.98, 1.1, 1, 0.82, 0.57,
    ),
    lasting=(
        0.17, 0.1, 0.069, 0.086, 0.05, 0.12, 0.071, 0.086, 0.11, 0.069, 0.11, 0.15, 0.19, 0.23, 0.5, 0.37, 0.69, 0.96,
        1, 1.7, 2, 1.4, 1.7, 1.6, 2.8,
    ),
)  # fmt: skip
"""Measured on 256 pictures of the demo's pair: `benchmarks/results/profile.json`, rounded."""
DAMPED = 0.5
"""Exponent of `lasting` in placement, by trial on 1,024 scenes (0, 0.25, 0.5, 0.75, 1, 1.5)."""


def caution(sigma: float) -> float:
    """How much of an extension to `sigma` is trusted, 0..1."""
    return CAUTION if sigma > NOISY else 1.0


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

    Those it begins with (`_beginning`) and the last are always among them: the last errors are seen as they are.

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
    begun = _beginning(sigmas, full)
    best = _best(sigmas, begun)
    used, step = max(full, min(best[-1])), steps - 1
    chosen: list[int] = []
    while step > begun[-1]:
        chosen.append(step)
        step, used = best[step][used][1], used - 1
    return (*begun, *reversed(chosen))


def _beginning(sigmas: tuple[float, ...], full: int) -> tuple[int, ...]:
    """The full passes a run begins with: all steps that decide the layout, or two, where there are too few for that."""
    steps = len(sigmas)
    layout = sum(sigma > LAYOUT for sigma in sigmas)
    rest = math.ceil((steps - layout) / _longest(steps))
    if full >= DENSE_SHARE * steps and 2 <= layout < full - rest:
        return tuple(range(layout))
    return 0, 1 if full >= DENSE_SHARE * steps else max(1, round(steps * SECOND))


def _longest(steps: int) -> int:
    return max(2, math.ceil(steps * LONGEST - 1e-9))


@functools.lru_cache(maxsize=16)
def _best(sigmas: tuple[float, ...], begun: tuple[int, ...]) -> tuple[dict[int, tuple[float, int]], ...]:
    """For every step as a full pass: how many there are up to it → the least expected error, and the pass before it.

    Dynamic programming over the steps, for every number of passes at once; the pass before the last one is taken to
    lie as far back in λ as the next one lies ahead, which keeps it quadratic.
    """
    strains = strained(sigmas)
    longest = _longest(len(sigmas))
    best: list[dict[int, tuple[float, int]]] = [{} for _ in sigmas]
    best[begun[-1]][len(begun)] = (0.0, begun[-2])
    for here in range(begun[-1], len(sigmas)):
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
