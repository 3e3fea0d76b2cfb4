"""Step cache: the large model alone, some steps extrapolated from its own earlier velocities.

Late in a run the difference that guidance adds changes little; from `cfg_cache_from` on computed steps take the
prompt's rows only and reuse the last difference (the CFG cache of FasterCache, arXiv 2410.19355).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.method import (
    SHARES,
    Method,
    Run,
    cautious_index,
    computed,
    point,
    step_index,
)
from lib_hybridstitch.plans.placement import placed
from lib_hybridstitch.plans.plan import CFG_CACHED, EXTRAPOLATED, GENERIC, LARGE, Plan

FASTEST = 0.43
"""Up to this share of computed steps the last one may cache guidance too: the others need the time more."""


@dataclass(frozen=True)
class StepCache(Method):
    """No second model is needed."""

    name: ClassVar[str] = "Step cache"
    presets: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {
        "Quality": {"computed_share": 0.68, "cfg_cache_from": 0.0},
        "Balanced": {},
        "Fast": {"computed_share": 0.46, "cfg_cache_from": 0.5},
    }

    computed_share: float = computed(0.54)
    cfg_cache_from: float = point(
        0.65,
        "CFG cache from",
        "From here on, reuse the last guidance difference instead of the negative prompt; 0 is never.",
    )

    def plan(self, run: Run) -> Plan:
        """Place the computed steps, and cache guidance in those behind `cfg_cache_from`."""
        count = run.steps
        wanted = cautious_index(self.computed_share, run) if self.computed_share < 1 else count
        chosen = set(placed(run, wanted))
        cached = step_index(self.cfg_cache_from, count) if self.cfg_cache_from and run.guided else count
        steps = [
            EXTRAPOLATED if step not in chosen else CFG_CACHED if step >= cached else LARGE for step in range(count)
        ]
        if self.computed_share > FASTEST:
            steps[-1] = LARGE  # the errors of the last step are seen as they are
        return Plan(tuple(steps), run.sigmas, self.name, profile=run.profile.name if run.profile else GENERIC)

    def faster(self) -> Iterator[Mapping[str, Scalar]]:
        """Ever fewer computed steps, guidance cached the earlier the fewer there are."""
        yield from ({"computed_share": share, "cfg_cache_from": 0.65 if share > 0.5 else 0.45} for share in SHARES)
