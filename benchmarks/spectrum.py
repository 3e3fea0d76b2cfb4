"""Spectrum (Han et al., arXiv 2603.01623): what the blocks make is forecast by Chebyshev polynomials over the steps.

As in its authors' code for SD3.5-Large: the feature is what the last block hands to the output layers, for all rows in
one call; the first steps are computed, then ever fewer, with gaps that grow by a fixed amount; a ridge regression on
all features so far gives the coefficients. The features enter linearly, so that a forecast is a weighted sum of them.
The authors count 50 steps and put them over -1..1; here the run's own number of steps takes that place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy
import torch
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor, nn

from benchmarks.diffusers_network import diffusers_network
from benchmarks.drawers import Cached, Clock
from hybridstitch_demo.generate import Pair

STEPS = 28


@dataclass(frozen=True)
class Spectrum:
    """Its settings; the defaults are those that its authors give.

    Args:
        growth: by how much the window grows with each computed step; the authors' α.
        warm_up: computed steps at the start.
        window: the first window: one of so many steps is computed.
        chebyshev: share of the forecast that is Chebyshev's; the rest is the line through the last two features.
        ridge: weight of the squared coefficients.
        order: highest polynomial.
        steps: of the run.
    """

    growth: float = 0.75
    warm_up: int = 5
    window: float = 2.0
    chebyshev: float = 0.5
    ridge: float = 0.1
    order: int = 4
    steps: int = STEPS

    def computed(self) -> tuple[int, ...]:
        """The steps that are computed, ascending."""
        chosen, window = list(range(self.warm_up)), self.window
        while (step := chosen[-1] + floor(window)) < self.steps:
            chosen.append(step)
            window += self.growth
        return tuple(chosen)

    def weights(self, known: tuple[int, ...], step: int) -> Tensor:
        """The weights (known,) whose sum over the features of the steps `known` is the forecast for `step`."""
        design = chebvander(2 * numpy.array(known) / self.steps - 1, self.order)
        (wanted,) = chebvander([2 * step / self.steps - 1], self.order)
        found = design @ numpy.linalg.solve(design.T @ design + self.ridge * numpy.eye(self.order + 1), wanted)
        line = numpy.zeros(len(known))
        line[-1] = 1.0
        if len(known) > 1:
            ahead = (step - known[-1]) / (known[-1] - known[-2])
            line[-2:] = -ahead, 1 + ahead
        return torch.from_numpy(self.chebyshev * found + (1 - self.chebyshev) * line)

    def drawer(self, pair: Pair) -> Cached:
        """A drawer whose network forecasts."""
        network: Any = diffusers_network(pair.large.config, pair.large.state_dict())
        blocks = Forecasting(network.transformer_blocks, self)
        network.transformer_blocks = nn.ModuleList([blocks])
        return Cached(network, pair.autoencoder, blocks.begin, Clock())


class Forecasting(nn.Module):
    """All blocks of diffusers' network as one, which in some steps computes nothing.

    Args:
        blocks: the network's own.
        spectrum: says in which steps, and how to forecast.
    """

    def __init__(self, blocks: nn.ModuleList, spectrum: Spectrum) -> None:
        super().__init__()
        self.blocks, self.spectrum = blocks, spectrum
        self.computed = spectrum.computed()
        self.begin()

    def begin(self) -> None:
        """Forget everything before a run."""
        self.step, self.known = -1, dict[int, Tensor]()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the blocks make of text (rows, L, width) and image (rows, N, width), or its forecast."""
        self.step += 1
        if self.step not in self.computed:
            weights = self.spectrum.weights(tuple(self.known), self.step).to(hidden_states)
            return encoder_hidden_states, torch.tensordot(weights, torch.stack(tuple(self.known.values())), 1)
        text, image = encoder_hidden_states, hidden_states
        for block in self.blocks:
            text, image = block(image, text, temb, joint_attention_kwargs)
        self.known[self.step] = image
        return text, image
