"""HybridStitch (Sun, Hon, Zhang, Liu; arXiv 2603.07815): large, then masked over the small model, then small.

The large model paints the composition. Then the small one sketches the whole latent while the large one refines the
tokens on which the two disagree most. Then the small one finishes. Here a part of the steps of the last two stages is
extrapolated, with gaps that grow, and the large model takes the last step. The published plan (preset Paper) computes
every step and ends with the small model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import (
    SHARES,
    Method,
    Run,
    cautious_index,
    computed,
    mask,
    point,
    setting,
    step_index,
    switch,
)
from lib_hybridstitch.plans.placement import growing
from lib_hybridstitch.plans.plan import EXTRAPOLATED, LARGE, SMALL, Plan, masked

SPARSEST = 0.3
"""At least this share of the steps after the switch is computed, however late the switch is."""
LARGE_IN_SHORT = 0.4
"""Least share of large steps in a short pass that begins from a picture."""
USUAL_STAGE = 0.25
"""Length of the hybrid stage, as a share of the pass, where the handoff is not behind the switch."""


@dataclass(frozen=True)
class HybridStitch(Method):
    """The method this extension is named after."""

    name: ClassVar[str] = "HybridStitch"
    presets: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "Quality": {"switch_step": 0.36, "handoff_step": 0.64, "computed_share": 0.68},
        "Balanced": {},
        "Fast": {"handoff_step": 0.54, "computed_share": 0.46},
        "Paper": {"switch_step": 0.29, "computed_share": 1.0},
    }

    switch_step: float = switch(0.32)
    handoff_step: float = point(
        0.57, "Handoff step", "Where the small model takes over alone: a step, or below 1 a fraction; 0 is never."
    )
    mask_ratio: float = mask(0.3)
    score: str = setting(
        "disagreement",
        "Mask by",
        "What makes a part of the picture complex: the models disagree there, or it still changes.",
        choices=("disagreement", "change"),
    )
    computed_share: float = computed(0.57)

    def plan(self, run: Run) -> Plan:
        """Large steps up to the switch; behind it masked and small steps with extrapolated ones between.

        A pass that begins from a picture has no small steps, unless a handoff is given in whole steps; a short one
        has no masked ones either, but in the published plan.
        """
        count = run.steps
        first = cautious_index(self.switch_step, run)
        later = first - step_index(self.switch_step, count)
        second = min(step_index(self.handoff_step, count) + later, count) if self.handoff_step else count
        if second <= first:
            second = min(count, first + ceil(USUAL_STAGE * count))
        refined = masked(self.mask_ratio)
        if run.from_picture and self.handoff_step < 1:  # only detail is left, which the small model draws differently
            second = count
        if run.from_picture and run.short:
            first, second = max(first, ceil(LARGE_IN_SHORT * count)), count
            refined = LARGE if self.computed_share < 1 else refined
        behind = count - first
        budget = max(step_index(self.computed_share, count) if self.computed_share < 1 else count, 1) - first
        chosen = {first + step for step in growing(behind, max(budget, ceil(SPARSEST * behind), 2))}
        for start, end in ((first, second), (second, count - 1)):
            if start < end and chosen.isdisjoint(range(start, end)):
                chosen.add(start)  # each stage is there, however few steps are computed
        steps = [LARGE] * first
        for step in range(first, count):
            steps.append(EXTRAPOLATED if step not in chosen else refined if step < second else SMALL)
        if self.computed_share < 1:  # the models differ most at the end, where one large step sets that right
            steps[-1] = LARGE
        return Plan(tuple(steps), run.sigmas, self.name, self.score)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever fewer computed steps, the large ones among them."""
        for share in SHARES:
            first = round(min(0.6 * share, 0.45), 2)
            yield {"computed_share": share, "switch_step": first, "handoff_step": round(first + USUAL_STAGE, 2)}
