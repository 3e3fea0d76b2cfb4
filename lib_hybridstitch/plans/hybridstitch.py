"""HybridStitch (Sun, Hon, Zhang, Liu; arXiv 2603.07815): large, then masked over the small model, then small.

The large model paints the composition. Then the small one sketches the whole latent while the large one refines the
tokens on which the two disagree most. Then the small one finishes. Here a part of the steps of all three stages is
extrapolated, behind a dense beginning and with gaps that grow, and the large model takes the last step. The published
plan (preset Paper) computes every step and ends with the small model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from lib_hybridstitch.plans.placement import placed
from lib_hybridstitch.plans.plan import EXTRAPOLATED, LARGE, SMALL, SMALL_CFG_CACHED, Plan, masked

LARGE_IN_SHORT = 0.4
"""Least share of large steps in a short pass that begins from a picture."""
SMALL_EVERY, SMALL_EVERY_IN_HASTE, HASTE = 2, 4, 0.5
"""The small model computes every second step of its own stage at least, as it is cheap; fewer where less than half of
all steps are computed."""
USUAL_STAGE = 0.25
"""Length of the hybrid stage, as a share of the pass, where the handoff is not behind the switch."""

TARGET_STAGE = 0.3
"""The same, where a target speed-up picks the stages: so long that some of its steps are computed."""


@dataclass(frozen=True)
class HybridStitch(Method):
    """The method this extension is named after."""

    name: ClassVar[str] = "HybridStitch"
    presets: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "Quality": {"switch_step": 0.5, "handoff_step": 0.75, "computed_share": 0.68},
        "Balanced": {},
        "Fast": {"switch_step": 0.46, "handoff_step": 0.64, "computed_share": 0.46},
        "Paper": {"switch_step": 0.29, "handoff_step": 0.43, "computed_share": 1.0},
    }

    switch_step: float = switch(0.43)
    handoff_step: float = point(
        0.75, "Handoff step", "Where the small model takes over alone: a step, or below 1 a fraction; 0 is never."
    )
    mask_ratio: float = mask(0.3)
    score: str = setting(
        "disagreement",
        "Mask by",
        "What makes a part of the picture complex: the models disagree there, or it still changes.",
        choices=("disagreement", "change"),
    )
    computed_share: float = computed(0.54)

    def plan(self, run: Run) -> Plan:
        """Large steps up to the switch, masked ones up to the handoff, then small ones; a part of all is extrapolated.

        A pass that begins from a picture has no small steps, unless a handoff is given in whole steps; a short one
        has no masked ones either, but in the published plan.
        """
        count = run.steps
        first = cautious_index(self.switch_step, run)
        later = first - step_index(self.switch_step, count)
        second = min(step_index(self.handoff_step, count) + later, count) if self.handoff_step else count
        if second <= first:
            second = min(count, first + ceil(USUAL_STAGE * count))
        refined, sketched = masked(self.mask_ratio), SMALL_CFG_CACHED
        if run.from_picture and self.handoff_step < 1:  # only detail is left, which the small model draws differently
            second = count
        if run.from_picture and run.short:
            first, second = max(first, ceil(LARGE_IN_SHORT * count)), count
            refined = LARGE if self.computed_share < 1 else refined
        if self.computed_share < 1:
            chosen = set(placed(replace(run, profile=None), cautious_index(self.computed_share, run)))
        else:
            chosen, sketched = set(range(count)), SMALL
        small = {step for step in chosen if second <= step < count - 1}
        every = SMALL_EVERY if self.computed_share > HASTE else SMALL_EVERY_IN_HASTE
        often = set(range(min(second + 1, count - 2), count - 1, every)) if second < count - 1 else small
        chosen = chosen - small | max(small, often, key=len)
        if first < second and chosen.isdisjoint(range(first, second)):
            chosen.add(first)  # each stage is there, however few steps are computed
        if self.switch_step >= 1:  # a switch in whole steps is meant as it is written
            chosen |= set(range(min(first + 1, count)))
        steps = [LARGE if step < first else refined if step < second else sketched for step in range(count)]
        steps = [step if index in chosen else EXTRAPOLATED for index, step in enumerate(steps)]
        if SMALL_CFG_CACHED in steps:  # guidance of its own stage for the others to go on with
            steps[steps.index(SMALL_CFG_CACHED)] = SMALL
        if self.computed_share < 1:  # the models differ most at the end, where one large step sets that right
            steps[-1] = LARGE
        return Plan(tuple(steps), run.sigmas, self.name, self.score)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever fewer computed steps, the large ones among them."""
        for share in SHARES:
            first = round(min(0.8 * share, 0.5), 2)
            yield {"computed_share": share, "switch_step": first, "handoff_step": round(first + TARGET_STAGE, 2)}
