"""A plan is a list of steps, each of one kind, and each owning its interval of noise levels.

The borders of the intervals lie half-way between the levels of the schedule, so that midpoints, second evaluations
(Heun), img2img and hires passes mean the same noise levels. What an evaluation does follows from its σ alone, never
from counting calls.

A plan has a text form, `8L 4M30 X M30 2X S`, which is written into pictures, read from them, and typed by hand.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from lib_hybridstitch.errors import SettingsError, quoted

GENERIC = "generic"
SCORES = ("disagreement", "change", "ras")
"""What makes a token complex; see `engine.masks`. The last is RAS' own."""
HIRES = "/ hires"
"""Stands between the plan of the first pass and that of hires fix's second one."""
MOST_STEPS = 10_000
_STEP = re.compile(r"(\d{0,5})(?:(L|C|S|s|X)|M(100|\d{1,2}(?:\.\d{1,2})?)(x?))", re.ASCII)
_SCORE = "score="
_HOLD = "hold"


class Kind(str, Enum):
    """Who computes the velocity of a step."""

    LARGE = "L"
    CFG_CACHED = "C"
    MASKED = "M"
    SMALL = "S"
    SMALL_CFG_CACHED = "s"
    EXTRAPOLATED = "X"

    @property
    def word(self) -> str:
        """The kind as people read it."""
        return _WORDS[self]


_WORDS = {
    Kind.LARGE: "large",
    Kind.CFG_CACHED: "CFG cached",
    Kind.MASKED: "masked",
    Kind.SMALL: "small",
    Kind.SMALL_CFG_CACHED: "small CFG cached",
    Kind.EXTRAPOLATED: "extrapolated",
}


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Args:
        kind: who computes it.
        ratio: share of the tokens that the large model computes in a masked step; 1 in all others.
        extrapolated: whether the background of a masked step is extrapolated instead of the small model's.
    """

    kind: Kind
    ratio: float = 1.0
    extrapolated: bool = False

    def __str__(self) -> str:
        if self.kind is not Kind.MASKED:
            return self.kind.value
        return f"M{round(100 * self.ratio, 2):g}{'x' if self.extrapolated else ''}"

    @property
    def calls_small(self) -> bool:
        """Whether the small model computes in this step; it may also be asked at a probe (see `Plan.is_probe`)."""
        small = self.kind in (Kind.SMALL, Kind.SMALL_CFG_CACHED)
        return small or (self.kind is Kind.MASKED and not self.extrapolated)


LARGE, CFG_CACHED, SMALL, SMALL_CFG_CACHED, EXTRAPOLATED = (
    Step(kind) for kind in (Kind.LARGE, Kind.CFG_CACHED, Kind.SMALL, Kind.SMALL_CFG_CACHED, Kind.EXTRAPOLATED)
)


def masked(ratio: float, extrapolated: bool = False) -> Step:
    """The large model on a share of the tokens; all of them are a large step, none of them is the background alone."""
    ratio = round(ratio, 4)  # what the text form can say
    if ratio >= 1:
        return LARGE
    if ratio <= 0:
        return EXTRAPOLATED if extrapolated else SMALL
    return Step(Kind.MASKED, ratio, extrapolated)


@dataclass(frozen=True)
class Plan:
    """What a sampling pass does.

    Args:
        steps: one per level of `sigmas`.
        sigmas: the noise levels that are sampled, descending, without the final 0.
        method: whose plan it is.
        score: what makes a token complex, one of `SCORES`.
        hold: whether extrapolation holds the last velocity instead of following its trend.
        profile: what the plan was made with: "generic", or the name of a profile of this model.
        notes: what was changed to keep the plan safe, in sentences.
    """

    steps: tuple[Step, ...]
    sigmas: tuple[float, ...]
    method: str
    score: str = "disagreement"
    hold: bool = False
    profile: str = GENERIC
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.sigmas) or not self.steps:
            raise ValueError(f"{len(self.steps)} steps for {len(self.sigmas)} noise levels")

    @cached_property
    def _floors(self) -> tuple[float, ...]:
        """The σ down to which each step reaches; the last one has no end."""
        return (*((high + low) / 2 for high, low in itertools.pairwise(self.sigmas)), -math.inf)

    def index(self, sigma: float) -> int | None:
        """Which step the noise level `sigma` belongs to; None for NaN and for timesteps handed in as σ (above 1)."""
        if not sigma <= 1.0 + 1e-4:
            return None
        return next(index for index, floor in enumerate(self._floors) if sigma > floor)

    def is_probe(self, index: int) -> bool:
        """Whether the large step `index` is the one that masked steps rest on: it fills the cache and makes scores."""
        if self.steps[index].kind is not Kind.LARGE:
            return False
        following = (step for step in self.steps[index + 1 :] if step.kind is not Kind.EXTRAPOLATED)
        return next(following, LARGE).kind is Kind.MASKED

    def calls_small(self, index: int) -> bool:
        """Whether the small model is called in step `index`, be it for scores alone."""
        return self.steps[index].calls_small or (self.score == "disagreement" and self.is_probe(index))

    @property
    def needs_small(self) -> bool:
        """Whether the small model is ever called."""
        return any(self.calls_small(index) for index in range(len(self.steps)))

    @property
    def mask_ratio(self) -> float:
        """The largest mask of any step; 0 without one."""
        return max((step.ratio for step in self.steps if step.kind is Kind.MASKED), default=0.0)

    def __str__(self) -> str:
        """The text form of this pass; `parse` reads it back."""
        words = []
        for text, group in itertools.groupby(map(str, self.steps)):
            count = len(list(group))
            words.append(f"{count}{text}" if count > 1 else text)
        rules = [_SCORE + self.score] * (self.score != "disagreement") + [_HOLD] * self.hold
        return " ".join(words + rules)


@dataclass(frozen=True)
class WrittenPlan:
    """One pass of a plan's text form.

    Args:
        steps: as they are written; `fitted` gives them for a pass of another length.
        score, hold: see `Plan`.
    """

    steps: tuple[Step, ...]
    score: str = "disagreement"
    hold: bool = False

    def fitted(self, count: int) -> tuple[Step, ...]:
        """The steps of a pass of `count` steps: each takes the kind of the step at the same part of the way."""
        own = len(self.steps)
        return tuple(self.steps[min(int((index + 0.5) * own / count), own - 1)] for index in range(count))


def parse(text: str) -> tuple[WrittenPlan | None, WrittenPlan | None]:
    """Read the text form: the plan of the first pass and, behind "/ hires", that of the second; None where none is.

    Raises:
        SettingsError: in one sentence, for anything else.
    """
    parts = text.split(HIRES)
    if len(parts) > 2:
        raise SettingsError(f"plan names {HIRES!r} {len(parts) - 1} times, but a run has one hires pass.", "plan")
    if not text.strip():
        return None, None
    first = _parse_pass(parts[0]) if parts[0].strip() else None
    return first, _parse_pass(parts[1]) if len(parts) == 2 else None


def _parse_pass(text: str) -> WrittenPlan:
    steps: list[Step] = []
    score, hold = "disagreement", False
    for word in text.split():
        if found := _STEP.fullmatch(word):
            count, letter, percent, extrapolated = found.groups()
            step = Step(Kind(letter)) if letter else masked(float(percent) / 100, bool(extrapolated))
            if len(steps) + int(count or 1) > MOST_STEPS:
                raise SettingsError(f"plan has more than {MOST_STEPS} steps.", "plan")
            steps += [step] * int(count or 1)
        elif word.startswith(_SCORE) and word.removeprefix(_SCORE) in SCORES:
            score = word.removeprefix(_SCORE)
        elif word == _HOLD:
            hold = True
        else:
            raise SettingsError(
                f"plan has {quoted(word)}, but must be steps such as '8L 4M30 X M30 2X S': L, C, S, s, X or M with a "
                "percentage, each behind how many there are.",
                "plan",
            )
    if not steps:
        raise SettingsError("plan has a pass without any step; write at least one, such as 8L.", "plan")
    return WrittenPlan(tuple(steps), score, hold)


def run_sigmas(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The noise levels that are evaluated: the schedule without its final 0."""
    levels = tuple(float(sigma) for sigma in sigmas)
    return levels[:-1] if len(levels) > 1 and levels[-1] == 0 else levels
