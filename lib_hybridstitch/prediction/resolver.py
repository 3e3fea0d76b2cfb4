"""The one way from settings to a plan, and to what it will do here.

A generation, `/plan`, the command line and the benchmarks all ask `resolve`, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import Kind, Plan, Step, parse
from lib_hybridstitch.plans.safety import secured
from lib_hybridstitch.prediction.operations import FULL, Setup
from lib_hybridstitch.prediction.timings import Times, step_ms
from lib_hybridstitch.settings import AUTO, StitchSettings

NOT_FASTER = 1.02
"""A speed-up up to this is none."""
FAST_ENOUGH = 0.99
"""Share of the target that counts as reached: whole steps do not come nearer."""
WRITTEN = "written plan"
"""What a plan is called that was typed or pasted."""

ADVICE = MappingProxyType(
    {
        "choose_small": "Choose a small checkpoint: this plan needs one.",
        "no_small": "The small checkpoint is not used in this plan.",
        "step_cache": "No small checkpoint is chosen, so Step cache runs.",
        "not_faster": "Not faster: too few steps are cheap. Choose a faster preset, or change the numbers.",
        "target": "The target speed-up is out of reach: this is the fastest plan of this method.",
        "low_target": "Not faster: the target speed-up asks for too little. Raise it.",
    }
)
"""What is to be known about a plan before it runs, by a word."""


@dataclass(frozen=True)
class Resolved:
    """What settings come to in one sampling pass.

    Args:
        plan: what will be done.
        speedup: predicted: time of the large model alone over the plan's.
        seconds, large_seconds: predicted time of the pass, and of the large model alone; None before a measured step.
        reason: a word of `ADVICE`, or "".
    """

    plan: Plan
    speedup: float
    seconds: float | None = None
    large_seconds: float | None = None
    reason: str = ""

    @property
    def summary(self) -> str:
        """The plan in words, with its speed-up."""
        basis = "by measured times" if self.seconds is not None else "by counted operations"
        return f"{in_words(self.plan.steps)}; about {self.speedup:.1f}x {basis}"

    @property
    def advice(self) -> str:
        """What to know or change, in a sentence, or ""."""
        return ADVICE.get(self.reason, "")


def resolve(
    settings: StitchSettings, run: Run, setup: Setup, times: Times | None = None, hires: bool = False
) -> Resolved:
    """Turn settings into the plan of one sampling pass, and say what it will do.

    Args:
        run: what is sampled.
        setup: the networks and sizes.
        times: what steps took here, where it is known.
        hires: whether this is the second pass of hires fix.
    """
    own = parse(settings.plan)[hires]
    if own is not None:
        plan = Plan(own.fitted(run.steps), run.sigmas, WRITTEN, own.score, own.hold)
        return _predicted(settings, secured(plan, run), setup, times)
    method = settings.chosen()
    if not settings.target_speedup:
        return _predicted(settings, secured(method.plan(run), run), setup, times)
    tried = []
    for values in method.faster():
        changed = replace(method, **values)
        tried.append(_predicted(settings, secured(changed.plan(run), run), setup, times))
        if tried[-1].speedup >= FAST_ENOUGH * settings.target_speedup:
            return replace(tried[-1], reason="low_target") if tried[-1].reason == "not_faster" else tried[-1]
    fastest = max(tried, key=lambda one: one.speedup)
    return fastest if fastest.reason == "choose_small" else replace(fastest, reason="target")


def _predicted(settings: StitchSettings, plan: Plan, setup: Setup, times: Times | None) -> Resolved:
    works = [setup.work(plan, index) for index in range(len(plan.steps))]
    count = len(works)
    if times is not None:
        total, large = sum(step_ms(times, setup, work) for work in works) / 1000, count * times[FULL] / 1000
    else:
        total, large = sum(setup.flops(work) for work in works), count * setup.flops(FULL)
    speedup = large / total if total else 1.0
    seconds, alone = (total, large) if times is not None else (None, None)
    return Resolved(plan, speedup, seconds, alone, _reason(settings, plan, speedup))


def _reason(settings: StitchSettings, plan: Plan, speedup: float) -> str:
    """The one thing to know about a plan: what it lacks, that it gains nothing, or what Auto has chosen."""
    if plan.needs_small and not settings.small_checkpoint:
        return "choose_small"
    if speedup <= NOT_FASTER:
        return "not_faster"
    if settings.small_checkpoint and not plan.needs_small:
        return "no_small"
    return "step_cache" if settings.method == AUTO and not plan.needs_small and not settings.plan else ""


def in_words(steps: Sequence[Step | Record]) -> str:
    """What will be done, or was: "8 large, 3 masked at 30 %, 4 small, 13 extrapolated", in the order of first use."""
    parts = []
    for kind in dict.fromkeys(step.kind for step in steps):
        found = [step for step in steps if step.kind is kind]
        text = f"{len(found)} {kind.word}"
        if kind is Kind.MASKED:
            shares = [step.ratio if isinstance(step, Step) else step.shares[0] for step in found]
            text += f" at {100 * sum(shares) / len(shares):.0f} %"
        parts.append(text)
    return ", ".join(parts)
