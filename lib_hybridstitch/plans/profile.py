"""What is known of one large model: how fast its velocity changes with the noise level, and what becomes of errors.

A profile is measured, and belongs to the checkpoint it was measured on. For a model that nobody has measured there is
none, and plans are made by a generic rule (`placement.growing`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_hybridstitch.errors import HybridStitchError, one_line, quoted

EDGE = 1e-3
"""Keeps λ finite at σ = 1, where there is no signal."""
CURVES = ("sigmas", "change", "lasting")
DAMPED = 0.5
"""Exponent of `lasting` in placement: an expected error is not so sure that it should decide alone."""


class ProfileError(HybridStitchError):
    """A profile file cannot be used; the message names the file and what is wrong with it."""


def log_snr(sigma: float) -> float:
    """λ(σ) = ln((1 − σ) / σ) of the rectified flow, finite at both ends."""
    return math.log((max(1.0 - sigma, 0.0) + EDGE) / (max(sigma, 0.0) + EDGE))


@dataclass(frozen=True)
class Profile:
    """How one large model behaves over the noise levels.

    Args:
        name: as the infotext records it.
        checkpoint: the host's short hash of the checkpoint it was measured on.
        sigmas: noise levels, ascending; values between them are interpolated, beyond them held.
        change: root mean square of the velocity's second derivative in λ.
        lasting: how much of an error made at this level is left in the finished latent.
    """

    name: str
    checkpoint: str
    sigmas: tuple[float, ...]
    change: tuple[float, ...]
    lasting: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile's JSON file.

        Raises:
            ProfileError: when it is not one.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            curves = {name: tuple(float(value) for value in found[name]) for name in CURVES}
            made = cls(one_line(str(found["name"])), str(found["checkpoint"]), **curves)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ProfileError(f"{path.name}: not a profile ({quoted(error)}); delete it or copy it again.") from error
        lengths = {len(values) for values in curves.values()}
        ascending = all(low < high for low, high in itertools.pairwise(made.sigmas))
        sound = all(math.isfinite(value) and value >= 0 for values in curves.values() for value in values)
        if len(lengths) != 1 or not made.sigmas or not ascending or not sound:
            raise ProfileError(f"{path.name}: its curves do not fit together; delete it or copy it again.")
        return made

    def at(self, curve: Sequence[float], sigma: float) -> float:
        """The value of one of the curves at `sigma`."""
        if sigma <= self.sigmas[0]:
            return curve[0]
        for (low, below), (high, above) in itertools.pairwise(zip(self.sigmas, curve, strict=True)):
            if sigma <= high:
                return below + (above - below) * (sigma - low) / (high - low)
        return curve[-1]

    def strain(self, sigmas: Sequence[float], step: int) -> float:
        """What it does to the picture that the velocity changes at a step which nobody computes."""
        after = sigmas[step + 1] if step + 1 < len(sigmas) else 0.0
        lasting = self.at(self.lasting, sigmas[step]) ** DAMPED
        return (sigmas[step] - after) * lasting * self.at(self.change, sigmas[step])


def profile_of(folder: Path, checkpoint: str) -> Profile | None:
    """The profile in `folder` of the checkpoint with that short hash, if there is one.

    Raises:
        ProfileError: when the file of that checkpoint cannot be used, or was measured on another one.
    """
    path = folder / f"{checkpoint}.json"
    if not checkpoint.isalnum() or not path.is_file():
        return None
    found = Profile.read(path)
    if found.checkpoint != checkpoint:
        raise ProfileError(
            f"{path.name}: was measured on {quoted(found.checkpoint)}; delete it or rename it after that."
        )
    return found
