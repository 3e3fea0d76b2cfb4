"""SRDiffusion (Cheng et al., arXiv 2505.19151): the large model begins, the small one finishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import SHARES, Method, Run, step_index, switch
from lib_hybridstitch.plans.plan import LARGE, SMALL, Plan


@dataclass(frozen=True)
class SRDiffusion(Method):
    """A peer, for comparison."""

    name: ClassVar[str] = "SRDiffusion"

    switch_step: float = switch(0.4)

    def plan(self, run: Run) -> Plan:
        """Large steps up to the switch, small ones behind it."""
        first = step_index(self.switch_step, run.steps)
        return Plan((LARGE,) * first + (SMALL,) * (run.steps - first), run.sigmas, self.name)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever earlier switches."""
        yield from ({"switch_step": share} for share in SHARES)
