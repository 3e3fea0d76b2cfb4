"""RAS (Liu et al., arXiv 2502.10389): the large model alone, region by region; the rest keeps its last velocity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import Method, Run, mask, step_index, switch
from lib_hybridstitch.plans.plan import LARGE, Plan, masked

RESETS = (12 / 28, 20 / 28)
"""Where the published settings for SD3 recompute everything, as fractions of the run."""


@dataclass(frozen=True)
class RAS(Method):
    """A peer, for comparison."""

    name: ClassVar[str] = "RAS"

    switch_step: float = switch(0.14)
    mask_ratio: float = mask(0.25)

    def plan(self, run: Run) -> Plan:
        """Large steps up to the switch and at the resets; masked ones between, over a background that is held."""
        first = step_index(self.switch_step, run.steps)
        resets = {round(fraction * run.steps) for fraction in RESETS}
        step = masked(self.mask_ratio, extrapolated=True)
        steps = tuple(LARGE if index < first or index in resets else step for index in range(run.steps))
        return Plan(steps, run.sigmas, self.name, score="ras", hold=True)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever smaller masks."""
        yield from ({"mask_ratio": ratio} for ratio in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1))
