"""T-Stitch (Pan et al., arXiv 2402.14167): the small model begins, the large one finishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import SHARES, Method, Run, step_index, switch
from lib_hybridstitch.plans.plan import LARGE, SMALL, Plan


@dataclass(frozen=True)
class TStitch(Method):
    """A peer, for comparison."""

    name: ClassVar[str] = "T-Stitch"

    switch_step: float = switch(0.4)

    def plan(self, run: Run) -> Plan:
        """Small steps up to the switch, large ones behind it."""
        first = step_index(self.switch_step, run.steps)
        return Plan((SMALL,) * first + (LARGE,) * (run.steps - first), run.sigmas, self.name)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever later switches."""
        yield from ({"switch_step": round(1 - share, 2)} for share in SHARES)
