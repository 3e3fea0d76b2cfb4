"""What a plan costs: counted floating-point operations, or measured step times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lib_hybridstitch.engine.complexity import mask_size
from lib_hybridstitch.mmdit.config import MLP_RATIO, TIME_FREQUENCIES, MMDiTConfig
from lib_hybridstitch.plans.plan import Plan, PlannedStep, Stage

ADVICE = {
    "all_large": "This plan is not faster: the large model computes all {steps} steps; lower switch_step.",
    "all_large_late": "This plan is not faster: the large model computes all {steps} steps; raise switch_step.",
    "all_full": "This plan is not faster: every hybrid step is a full pass; raise refresh_every above 1.",
    "all_placed": "This plan is not faster: every hybrid step is a full pass; lower full_share.",
    "large_mask": (
        "This plan is not faster: a hybrid step at mask_ratio {ratio} costs about a large one; lower mask_ratio."
    ),
    "target": "{target:g}x is out of reach: this is the fastest plan of its kind; lower target_speedup.",
    "low_target": "A target_speedup of {target:g} comes to no speed-up; raise it.",
    "few_cheap": "This plan is not faster: too few steps are cheap; lower switch_step or mask_ratio.",
}
"""Why nothing is gained → the sentence that names the setting to change."""
NOT_FASTER = 1.02
"""A speed-up up to this is none."""


def pass_flops(config: MMDiTConfig, kept: int, count: int, context: int, rows: int = 1) -> int:
    """Count the floating-point operations of one pass (two per multiply-add; norms and activations left out).

    Args:
        kept: image tokens computed; `count` of them is a full pass.
        count, context: image and text tokens per row.
        rows: rows of the call.
    """
    if kept == 0:
        return 0
    width, patch = config.hidden, config.patch_size**2
    square = width * width
    per_token = (4 + 2 * MLP_RATIO) * square
    total = count * width * patch * config.in_channels + kept * width * patch * config.out_channels
    total += context * width * config.context_dim + width * (TIME_FREQUENCIES + config.pooled_dim) + 4 * square
    for index in range(config.depth):
        dual, last = index in config.dual_attention, index == config.depth - 1
        total += kept * (per_token + 4 * square * dual) + context * (3 * square if last else per_token)
        total += (9 if dual else 6) * square + (2 if last else 6) * square
        total += 2 * width * (context + kept) * (context + count) + 2 * width * kept * count * dual
    return 2 * rows * total


class Costs(Protocol):
    """What steps cost, in any one unit."""

    @property
    def large(self) -> float:
        """Full pass of the large model."""
        ...

    @property
    def measured(self) -> bool:
        """Whether they are times of this machine."""
        ...

    @property
    def held(self) -> float:
        """Share of a full pass that is left where guidance is held; 1 where there is no guidance."""
        ...

    def of(self, step: PlannedStep, plan: Plan) -> float:
        """One step of a plan."""
        ...


@dataclass(frozen=True)
class StepCosts:
    """What the parts of a step cost, in any one unit (operations, milliseconds).

    Args:
        large: full pass of the large model.
        partial: pass of the large model over the mask.
        small: full pass of the small model.
        small_outside: pass of the small model over the tokens outside the mask.
        overhead: bookkeeping of a hybrid step.
        held: share of a full pass that is left where guidance is held.
        measured: whether they are times of this machine.
    """

    large: float
    partial: float
    small: float
    small_outside: float
    overhead: float = 0.0
    held: float = 1.0
    measured: bool = False

    @classmethod
    def counted(
        cls,
        large: MMDiTConfig,
        small: MMDiTConfig | None,
        plan: Plan,
        count: int,
        context: int,
        rows: int,
        streams: int = 1,
    ) -> StepCosts:
        """Count operations of steps.

        Args:
            count, context: image and text tokens per row.
            rows: per step.
            streams: rows per picture; one of several has no prompt and can be held.
        """
        kept = mask_size(plan.hybrid.mask_ratio, count)
        return cls(
            large=pass_flops(large, count, count, context, rows),
            partial=pass_flops(large, kept, count, context, rows),
            small=pass_flops(small, count, count, context, rows) if small else 0,
            small_outside=pass_flops(small, count - kept, count, context, rows) if small else 0,
            held=held_share(streams),
        )

    def of(self, step: PlannedStep, plan: Plan) -> float:
        """Cost of one step of a plan."""
        if step.stage is Stage.LARGE:
            return self.large
        if step.stage is Stage.SMALL:
            return self.small
        small = self.small if step.full or plan.hybrid.small_scope == "all" else self.small_outside
        large = (self.held if step.held else 1.0) * self.large if step.full else self.partial
        return large + small * step.small + self.overhead


def held_share(streams: int) -> float:
    """Share of the rows that is left to compute where guidance is held, of `streams` rows per picture."""
    return (streams - 1) / streams if streams > 1 else 1.0


@dataclass(frozen=True)
class Forecast:
    """What a plan is expected to do.

    Args:
        steps: every step.
        speedup: cost of the large model alone over the plan's.
        summary: one line for people.
        advice: what to change when nothing is gained, else "".
        reason: the advice's word in `ADVICE`, else "".
        measured: whether times of this machine are behind it, and not counted operations.
    """

    steps: tuple[PlannedStep, ...]
    speedup: float
    summary: str
    advice: str
    reason: str
    measured: bool


def forecast(plan: Plan, sigmas: Sequence[float], costs: Costs) -> Forecast:
    """Foretell a run: its steps, its cost, and a sentence when it would not be faster."""
    steps = plan.steps(sigmas)
    if costs.held == 1:  # no guidance, so nothing to hold
        steps = tuple(replace(step, held=False) for step in steps)
    total = sum(costs.of(step, plan) for step in steps)
    speedup = len(steps) * costs.large / total if total else 1.0
    summary = _summary(plan, steps, speedup) + (" by measured times" if costs.measured else "")
    reason, advice = ("", "") if speedup > NOT_FASTER else _advice(plan, steps)
    return Forecast(steps, speedup, summary, advice, reason, costs.measured)


def _summary(plan: Plan, steps: Sequence[PlannedStep], speedup: float) -> str:
    parts = [f"{len(steps)} steps"]
    for stage in Stage:
        found = [step for step in steps if step.stage is stage]
        if not found:
            continue
        text = f"{len(found)} {stage.value}"
        if stage is Stage.HYBRID:
            mask = f" at {plan.hybrid.mask_ratio:.0%}" if plan.hybrid.mask_ratio else " without mask"
            held = sum(step.held for step in found)
            also = f", {held} with guidance held" if held else ""
            text += f"{mask} ({sum(step.full for step in found)} of them full{also})"
        parts.append(text)
    return " · ".join([*parts, f"about {speedup:.1f}x"])


def _advice(plan: Plan, steps: Sequence[PlannedStep]) -> tuple[str, str]:
    """Why a plan gains nothing: a word of `ADVICE`, and its sentence."""
    if all(step.stage is Stage.LARGE for step in steps):
        reason = "all_large" if plan.method != "T-Stitch" else "all_large_late"
    elif plan.hybrid.refresh_every == 1:
        reason = "all_full"
    elif all(step.full or step.stage is Stage.LARGE for step in steps):
        reason = "all_placed"
    elif plan.hybrid.background == "small" and plan.hybrid.mask_ratio > 0.5:
        reason = "large_mask"
    else:
        reason = "few_cheap"
    return reason, ADVICE[reason].format(steps=len(steps), ratio=f"{plan.hybrid.mask_ratio:g}")
