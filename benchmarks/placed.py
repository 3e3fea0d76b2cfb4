"""Well-placed fewer steps: the large model alone by Euler, over the noise levels that a search found."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.drawers import Drawing
from hybridstitch_demo.generate import Pair, Request, guided, shifted
from hybridstitch_demo.words import LENGTH
from lib_hybridstitch.engine.evaluation import COND, Evaluation, Model
from lib_hybridstitch.mmdit.tokens import TokenGrid
from lib_hybridstitch.prediction.operations import pass_flops


def growing(count: int, first: int, last: bool) -> tuple[float, ...]:
    """Places of `count` evaluations in 28 steps: the first ones all, then gaps that grow geometrically.

    Args:
        last: whether the last of them is the schedule's last.
    """
    gaps, end = (count - first, 27) if last else (count - first + 1, 28)
    low, high = 1.0, 28.0
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (
            (low, ratio) if sum(ratio**power for power in range(1, gaps + 1)) > end + 1 - first else (ratio, high)
        )
    places = itertools.accumulate((low**power for power in range(1, gaps + 1)), initial=first - 1)
    return (*map(float, range(first - 1)), *(round(place, 2) for place in itertools.islice(places, count - first + 1)))


@dataclass(frozen=True)
class Placed:
    """Which noise levels are evaluated, and in which steps with guidance.

    Args:
        levels: places in the schedule of the request's steps, ascending from 0, fractions too; 0 comes after the last.
        guided: so many of the first steps compute the rows without prompt.
        cached: whether the others go on with the last difference that guidance made, instead of without guidance.
    """

    levels: tuple[float, ...]
    guided: int
    cached: bool = True

    def sigmas(self, steps: int) -> tuple[float, ...]:
        """The noise levels, descending, with the final 0, on a schedule of so many steps."""
        return tuple(shifted(1 - level / steps) for level in (*self.levels, steps))

    def drawer(self, pair: Pair) -> PlacedDrawer:
        """Make the drawer."""
        return PlacedDrawer(pair, self)


@dataclass(frozen=True)
class PlacedDrawer:
    """Draws requests with guidance at a recipe's noise levels; their sampler does not matter."""

    pair: Pair
    recipe: Placed

    @torch.inference_mode()
    def draw(self, request: Request, count: bool = False) -> Drawing:
        """Draw a request."""
        started = time.perf_counter()
        x, operations = self._latents(request)
        pictures = self.pair.autoencoder.decode(x)
        return Drawing(pictures, 1000 * (time.perf_counter() - started), operations if count else None)

    def _latents(self, request: Request) -> tuple[Tensor, int]:
        """Latents (pictures, 16, size/8, size/8) and the operations they took."""
        network = self.pair.large
        large, difference, operations, calls = Model(network), torch.zeros(()), 0, 0

        def velocity(call: Evaluation) -> Tensor:
            nonlocal difference, operations, calls
            both = calls < self.recipe.guided
            chosen = [index for index, (_, stream) in enumerate(call.rows) if both or stream == COND]
            tokens = TokenGrid.of(call.x, network.config.patch_size).count
            operations += pass_flops(network.config, tokens, tokens, LENGTH, len(chosen))
            calls += 1
            found = large.full_pass(call.part(chosen)).velocity
            if both:
                cond, uncond = found.chunk(2)
                difference = uncond - cond
                return found
            return torch.cat([found, found + difference * self.recipe.cached])

        denoise = guided(velocity, request, large.full_pass)
        x = request.noise()
        for sigma, following in itertools.pairwise(self.recipe.sigmas(request.steps)):
            x = x + (following - sigma) * denoise(x, sigma)
        return x, operations
