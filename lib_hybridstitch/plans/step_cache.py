"""Step cache: the large model alone, some steps extrapolated from its own earlier velocities.

Late in a run the difference that guidance adds changes little; from `cfg_cache_from` on computed steps take the
prompt's rows only and reuse the last difference (the CFG cache of FasterCache, arXiv 2410.19355).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import (
    SHARES,
    USUAL_RUN,
    Method,
    Run,
    cautious_index,
    computed,
    point,
    step_index,
)
from lib_hybridstitch.plans.placement import placed
from lib_hybridstitch.plans.plan import CFG_CACHED, EXTRAPOLATED, GENERIC, LARGE, Plan

LAYOUT_STEPS, LAYOUT_SHARE = 9, 0.45
"""A run of few steps begins with so many large ones: so many, or that share of all, decide the layout."""


@dataclass(frozen=True)
class StepCache(Method):
    """No second model is needed."""

    name: ClassVar[str] = "Step cache"
    presets: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "Quality": {"computed_share": 0.68, "cfg_cache_from": 0.0},
        "Balanced": {},
        "Fast": {"computed_share": 0.46},
    }

    computed_share: float = computed(0.57)
    cfg_cache_from: float = point(
        0.5,
        "CFG cache from",
        "From here on, reuse the last guidance difference instead of the negative prompt; 0 is never.",
    )

    def plan(self, run: Run) -> Plan:
        """Place the computed steps, and cache guidance in those behind `cfg_cache_from`."""
        count = run.steps
        wanted = cautious_index(self.computed_share, run) if self.computed_share < 1 else count
        few = count < USUAL_RUN and not run.from_picture
        beginning = min(LAYOUT_STEPS, ceil(LAYOUT_SHARE * count)) if few else 2
        chosen = set(placed(run.sigmas, wanted, run.profile, max(beginning, 2)))
        cached = step_index(self.cfg_cache_from, count) if self.cfg_cache_from and run.guided else count
        steps = [
            EXTRAPOLATED if step not in chosen else CFG_CACHED if step >= cached else LARGE for step in range(count)
        ]
        steps[-1] = LARGE  # the errors of the last step are seen as they are
        return Plan(tuple(steps), run.sigmas, self.name, profile=run.profile.name if run.profile else GENERIC)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever fewer computed steps."""
        yield from ({"computed_share": share} for share in SHARES)
