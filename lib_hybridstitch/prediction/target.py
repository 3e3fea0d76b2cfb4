"""A wished speed-up becomes settings: of all splits that are fast enough, the one expected to stay closest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib_hybridstitch.fields import Scalar
from lib_hybridstitch.plans.plan import Plan, PlannedStep, Stage, make_plan, run_sigmas
from lib_hybridstitch.plans.profile import PROFILE, remainder, weight
from lib_hybridstitch.prediction.cost import ADVICE, NOT_FASTER, Costs, forecast
from lib_hybridstitch.settings import StitchSettings

SHARES = tuple(percent / 100 for percent in range(20, 100))
FRACTIONS = tuple(round(twelfth / 12, 2) for twelfth in range(12))
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)
FAST_ENOUGH = 0.99
"""Share of the wished speed-up that counts as reached: whole steps do not come nearer."""


@dataclass(frozen=True)
class Aim:
    """What a wished speed-up comes to.

    Args:
        settings: with the numbers that follow from it.
        speedup: what the cost model foretells for them.
        reached: whether that is what was wished for; else it is the fastest there is.
    """

    settings: StitchSettings
    speedup: float
    reached: bool

    @property
    def reason(self) -> str:
        """What to know about the wish, a word of `ADVICE`, or ""; a plan's own advice names settings that follow."""
        if not self.reached:
            return "target"
        return "low_target" if self.speedup <= NOT_FASTER else ""

    def advice(self, target: float) -> str:
        """`reason` as a sentence, or ""; `target` is what was wished for."""
        return ADVICE[self.reason].format(target=target) if self.reason else ""


def aim(
    settings: StitchSettings, sigmas: Sequence[float], sampled: Sequence[float], costs_of: Callable[[Plan], Costs]
) -> Aim:
    """Resolve `settings.target_speedup`.

    The method and who supplies the background stay as they are set: what is chosen is where stages begin and end,
    the mask's size and which steps are full.

    Args:
        settings: with a target.
        sigmas: the full schedule of a run.
        sampled: the part of it that is sampled; all of it in txt2img.
        costs_of: the costs of a plan's steps.
    """
    best: tuple[tuple[float, ...], Aim] | None = None
    for values in _candidates(settings, len(run_sigmas(sigmas))):
        tried = settings.with_changes({"target_speedup": 0.0, "preset": "Custom", **values})
        plan = make_plan(tried, sigmas)
        speedup = forecast(plan, sampled, costs_of(plan)).speedup
        reached = speedup >= FAST_ENOUGH * settings.target_speedup
        order = (0.0, expected_distance(plan, sampled), -speedup) if reached else (1.0, -speedup, 0.0)
        if best is None or order < best[0]:
            best = order, Aim(tried, speedup, reached)
    assert best is not None, "every method has candidates"
    return best[1]


def _candidates(settings: StitchSettings, steps: int) -> Iterator[Mapping[str, Scalar]]:
    """The splits of a method, as changes of its settings."""
    if settings.method in ("T-Stitch", "SRDiffusion"):
        yield from ({"switch_step": float(share)} for share in FRACTIONS)
    elif settings.method == "RAS":
        yield from ({"mask_ratio": ratio} for ratio in RATIOS)
    elif settings.background == "reuse":
        known: set[int] = set()
        for share in SHARES:
            if round(share * steps) not in known:
                known.add(round(share * steps))
                yield {"full_share": share, "refresh_every": 0, "switch_step": 0.0, "mask_ratio": 0.0}
    else:
        for switch in FRACTIONS:
            for handoff in (0.0, *(fraction for fraction in FRACTIONS if fraction > switch)):
                for ratio in RATIOS:
                    yield {"switch_step": switch, "handoff_step": handoff, "mask_ratio": ratio}


def expected_distance(plan: Plan, sampled: Sequence[float]) -> float:
    """How far from the large model's latent a plan is expected to end, root mean square; what matters is the order.

    Args:
        sampled: the schedule, or its end in img2img.
    """
    levels = run_sigmas(sampled)
    known: list[float] = []
    total = 0.0
    for index, step in enumerate(plan.steps(sampled)):
        if step.full or step.stage is Stage.LARGE:
            known.append(step.sigma)
            continue
        total += weight(levels, index) * _missed(step, plan, known)
    return total


def _missed(step: PlannedStep, plan: Plan, known: Sequence[float]) -> float:
    """Expected error of the velocity at a step that is not full, after full ones at the levels `known`."""
    small = PROFILE.at(PROFILE.disagreement, step.sigma)
    if step.stage is Stage.SMALL:
        return small
    left = 1 - plan.hybrid.mask_ratio
    if plan.hybrid.background == "small":
        return small * left
    if len(known) < 2:
        return small * left
    return remainder(step.sigma, known[-1], known[-2]) * left
