"""Stages over σ: what HybridStitch and its peers do at which noise level.

A plan is made from the full schedule of a run, so that a step means the same noise level in img2img and hires passes,
where only the end of the schedule is sampled. Stages follow from σ alone, never from counting calls.

Sources: HybridStitch, arXiv 2603.07815; T-Stitch, arXiv 2402.14167; SRDiffusion, arXiv 2505.19151; RAS, arXiv
2502.10389.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lib_hybridstitch.plans.profile import place
from lib_hybridstitch.settings import StitchSettings, step_index

RAS_RESETS = (12 / 28, 20 / 28)
"""Where RAS' published settings for SD3 recompute everything, as fractions of the run."""
ADAPTIVE_EARLIEST = 0.2
"""SRDiffusion's adaptive switch never happens before this fraction of the run."""


class Stage(str, Enum):
    """Who computes the velocity."""

    LARGE = "large"
    HYBRID = "hybrid"
    SMALL = "small"


@dataclass(frozen=True)
class Segment:
    """One stage: it lasts while σ > `floor`."""

    stage: Stage
    floor: float


@dataclass(frozen=True)
class HybridRule:
    """What happens inside the hybrid stage.

    Args:
        mask_ratio: share of the tokens that the large model computes, 0..1.
        mask_threshold: only tokens scoring above it, at most `mask_ratio`; 0 for a fixed share.
        score: "disagreement", "change", "detail", or "ras" (RAS' own metric).
        background: who supplies the other tokens, "small" or "reuse".
        extrapolate: reuse: share of the two-point extrapolation in σ, 0..1.
        small_scope: "all", or "outside" for the tokens outside the mask only.
        refresh_every: evaluations from one full pass of the large model to the next; 0 for no such rhythm.
        resets: noise levels whose crossing forces a full pass.
        hold_guidance: σ below which full passes compute the prompt's rows alone: what guidance adds to them is held.
    """

    mask_ratio: float = 0.3
    mask_threshold: float = 0.0
    score: str = "disagreement"
    background: str = "small"
    extrapolate: float = 0.0
    small_scope: str = "all"
    refresh_every: int = 0
    resets: tuple[float, ...] = ()
    hold_guidance: float = -math.inf

    @property
    def calls_small(self) -> bool:
        """Whether evaluations between full passes need the small model."""
        return self.background == "small" and self.mask_ratio < 1

    @property
    def begins_full(self) -> bool:
        """Whether the stage begins with a probe; it is pointless where nothing rests on one."""
        return self.mask_ratio > 0 or self.background == "reuse" or self.refresh_every > 0

    @property
    def fills_small_cache(self) -> bool:
        """Whether the small model computes tokens outside the mask only, and so needs a full pass of its own first."""
        return self.background == "small" and self.small_scope == "outside" and 0 < self.mask_ratio < 1

    @property
    def full_calls_small(self) -> bool:
        """Whether full passes need the small model as well, to compare with."""
        return self.score == "disagreement" and 0 < self.mask_ratio < 1


@dataclass(frozen=True)
class AdaptiveRule:
    """SRDiffusion's switch: the large model's output has settled.

    Args:
        earliest: σ above which it never switches; the segment's floor is where it does so at the latest.
        tolerance: largest fall of the change from one step to the next that counts as settled.
    """

    earliest: float
    tolerance: float = 0.01

    def settled(self, before: float, now: float) -> bool:
        """Whether two consecutive changes d = tanh(mean|o − o'| / mean|o'|) call for the switch."""
        return 0 < before - now < self.tolerance


@dataclass(frozen=True)
class PlannedStep:
    """What a plan expects of one step.

    Args:
        stage: who computes it.
        sigma: its noise level.
        full: whether the large model computes every token.
        small: whether the small model is called.
        held: whether it does so for the prompt's rows alone, the guidance being held.
    """

    stage: Stage
    sigma: float
    full: bool
    small: bool
    held: bool = False


@dataclass(frozen=True)
class Plan:
    """Stages of a run by σ, and the rules inside them."""

    method: str
    segments: tuple[Segment, ...]
    hybrid: HybridRule = HybridRule()
    adaptive: AdaptiveRule | None = None

    def stage(self, sigma: float) -> Stage:
        """Return the stage at noise level σ; timesteps handed in as σ (> 1) belong to the large model."""
        if sigma > 1.0 + 1e-4 or math.isnan(sigma):
            return Stage.LARGE
        for segment in self.segments:
            if sigma > segment.floor:
                return segment.stage
        return self.segments[-1].stage

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages that can occur at all."""
        return frozenset(segment.stage for segment in self.segments)

    @property
    def needs_small(self) -> bool:
        """Whether the small model is ever called."""
        hybrid = Stage.HYBRID in self.stages and (self.hybrid.calls_small or self.hybrid.full_calls_small)
        return Stage.SMALL in self.stages or hybrid

    def steps(self, sigmas: Sequence[float]) -> tuple[PlannedStep, ...]:
        """Foretell every step of a run; an adaptive switch is taken at its latest."""
        planned: list[PlannedStep] = []
        since_full: int | None = None
        previous = math.inf
        for sigma in run_sigmas(sigmas):
            stage = self.stage(sigma)
            if stage is Stage.HYBRID:
                full = self.hybrid.mask_ratio >= 1 or self.is_refresh(since_full, previous, sigma)
                first = since_full is None and self.hybrid.fills_small_cache
                small = (self.hybrid.full_calls_small or first) if full else self.hybrid.calls_small
                since_full = 1 if full or since_full is None else since_full + 1
                planned.append(PlannedStep(stage, sigma, full, small, full and sigma < self.hybrid.hold_guidance))
            else:
                since_full = None
                planned.append(PlannedStep(stage, sigma, stage is Stage.LARGE, stage is Stage.SMALL))
            previous = sigma
        return tuple(planned)

    def is_refresh(self, since_full: int | None, previous: float, sigma: float) -> bool:
        """Whether a hybrid evaluation must be a full pass.

        Args:
            since_full: evaluations since the last full pass, that one included; None when there was none (the probe).
            previous, sigma: noise levels of the evaluation before and of this one.
        """
        if since_full is None:
            return self.hybrid.begins_full
        if self.hybrid.refresh_every and since_full >= self.hybrid.refresh_every:
            return True
        return any(previous > reset >= sigma for reset in self.hybrid.resets)


def run_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return the noise levels that are evaluated: the schedule without its final 0."""
    levels = tuple(float(sigma) for sigma in sigmas)
    return levels[:-1] if len(levels) > 1 and levels[-1] == 0 else levels


def boundary(sigmas: Sequence[float], step: int) -> float:
    """Return the σ between step − 1 and `step`: half-way, so that neither rounding nor midpoints move a step.

    Steps before the first and after the last give +inf and −inf.
    """
    levels = run_sigmas(sigmas)
    if step <= 0:
        return math.inf
    if step >= len(levels):
        return -math.inf
    return (levels[step - 1] + levels[step]) / 2


def make_plan(settings: StitchSettings, sigmas: Sequence[float]) -> Plan:
    """Resolve settings to a plan over the full schedule `sigmas` of a run (descending, with or without the final 0)."""
    count = len(run_sigmas(sigmas))
    switch = boundary(sigmas, step_index(settings.switch_step, count))
    if settings.method == "T-Stitch":
        return Plan("T-Stitch", (Segment(Stage.SMALL, switch), Segment(Stage.LARGE, -math.inf)))
    if settings.method == "SRDiffusion":
        rule = AdaptiveRule(boundary(sigmas, step_index(ADAPTIVE_EARLIEST, count))) if settings.adaptive else None
        return Plan("SRDiffusion", (Segment(Stage.LARGE, switch), Segment(Stage.SMALL, -math.inf)), adaptive=rule)
    handoff = -math.inf
    if settings.handoff_step:
        handoff = boundary(sigmas, step_index(settings.handoff_step, count))
    segments = (Segment(Stage.LARGE, switch), Segment(Stage.HYBRID, handoff), Segment(Stage.SMALL, -math.inf))
    if settings.method == "RAS":
        resets = tuple(boundary(sigmas, round(fraction * count)) for fraction in RAS_RESETS)
        rule_ras = HybridRule(settings.mask_ratio, 0.0, "ras", "reuse", resets=resets)
        return Plan("RAS", segments[:1] + (Segment(Stage.HYBRID, -math.inf),), rule_ras)
    placed = _placed(settings, sigmas)
    rule_hybrid = HybridRule(
        settings.mask_ratio,
        settings.mask_threshold,
        settings.score,
        settings.background,
        settings.extrapolate,
        settings.small_scope,
        settings.refresh_every,
        placed,
        _held_from(settings, sigmas),
    )
    return Plan("HybridStitch", segments[: 3 if settings.handoff_step else 2], rule_hybrid)


def _held_from(settings: StitchSettings, sigmas: Sequence[float]) -> float:
    """Below which σ guidance is held; a mask's cached keys and values would grow old with the rows left out."""
    if not settings.hold_guidance or settings.background != "reuse" or settings.mask_ratio:
        return -math.inf
    return boundary(sigmas, step_index(settings.hold_guidance, len(run_sigmas(sigmas))))


def _placed(settings: StitchSettings, sigmas: Sequence[float]) -> tuple[float, ...]:
    """Where full passes fall when a share of the steps is to be full; nowhere when they follow a rhythm."""
    if settings.refresh_every or not settings.full_share:
        return ()
    levels = run_sigmas(sigmas)
    chosen = place(levels, step_index(settings.full_share, len(levels)) if settings.full_share < 1 else len(levels))
    return tuple(boundary(sigmas, step) for step in chosen)
