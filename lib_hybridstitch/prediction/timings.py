"""What steps really took, so that a forecast rests on this machine's own times once there are any."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lib_hybridstitch.engine.complexity import mask_size
from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.plans.plan import Plan, PlannedStep, Stage
from lib_hybridstitch.prediction.cost import Costs, StepCosts

Shares = tuple[float, float, float]
"""The part of the tokens that the large model computes in a step, and the small one's, and the part of the rows that is
computed at all."""
LARGE_STEP = (1.0, 0.0, 1.0)

KEPT_KINDS = 32
KEPT_PASSES = 5


@dataclass(frozen=True)
class RunKind:
    """What the time of a step depends on, beside the plan.

    Args:
        large, small: the networks; small is None where there is none.
        tokens: image tokens per row.
        rows: rows of an evaluation.
        kv_cache: how keys and values are kept.
        small_device: where the small model computes.
        streams: rows per picture.
    """

    large: MMDiTConfig
    small: MMDiTConfig | None
    tokens: int
    rows: int
    kv_cache: str
    small_device: str
    streams: int

    def counted(self, plan: Plan, context: int) -> StepCosts:
        """What a plan's steps cost in counted operations, with `context` text tokens per row."""
        return StepCosts.counted(self.large, self.small, plan, self.tokens, context, self.rows, self.streams)


class Paces:
    """Milliseconds per step, by kind of run and by what a step computes; the oldest kinds are forgotten.

    Forecasts ask from any thread while a generation is measured.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[RunKind, dict[Shares, deque[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, kind: RunKind, steps: Sequence[Record]) -> None:
        """Remember the evaluations of a pass: the median of each sort, so that a first slow step counts for little."""
        times: dict[Shares, list[float]] = defaultdict(list)
        for step in steps:
            large, small = (step.kept(tokens) / step.tokens for tokens in (step.tokens_large, step.tokens_small))
            times[_rounded(large, small, step.rows_computed / step.rows)].append(step.ms)
        with self._lock:
            known = self._known.setdefault(kind, {})
            self._known.move_to_end(kind)
            while len(self._known) > KEPT_KINDS:
                self._known.popitem(last=False)
            for shares, found in times.items():
                known.setdefault(shares, deque(maxlen=KEPT_PASSES)).append(median(found))

    def clear(self) -> None:
        """Forget everything, since other weights compute now."""
        with self._lock:
            self._known.clear()

    def costs(self, kind: RunKind, counted: StepCosts) -> Costs:
        """Costs of a run of this kind: measured where its large step is known, else counted."""
        with self._lock:
            times = {shares: median(found) for shares, found in self._known.get(kind, {}).items()}
        return MeasuredCosts(times, counted, kind.tokens) if times.get(LARGE_STEP) else counted


@dataclass(frozen=True)
class MeasuredCosts:
    """Milliseconds of steps; one that was never measured is read off its like, or counted in relation to a large step.

    Args:
        times: what a step computes → milliseconds; `LARGE_STEP` is among them.
        counted: operations.
        tokens: image tokens per row.
    """

    times: dict[Shares, float]
    counted: StepCosts
    tokens: int

    @property
    def large(self) -> float:
        """Milliseconds of a large step."""
        return self.times[LARGE_STEP]

    @property
    def measured(self) -> bool:
        """Whether they are times of this machine."""
        return True

    @property
    def held(self) -> float:
        """Share of a full pass that is left where guidance is held; see `StepCosts`."""
        return self.counted.held

    def of(self, step: PlannedStep, plan: Plan) -> float:
        """Milliseconds of one step of a plan."""
        wanted = shares(step, plan, self.tokens, self.held)
        known = self.times.get(wanted)
        if known is None and not step.held:
            known = self._alike(*wanted[:2])
        return self.counted.of(step, plan) / self.counted.large * self.large if known is None else known

    def _alike(self, large: float, small: float) -> float | None:
        """Milliseconds of a partial pass of another share than were measured, on a line through the two nearest.

        A pass takes some time however few its tokens are, and beyond that a time in proportion to them. At small sizes
        the first part is most of it, which no count of operations knows.
        """
        whole = {(share, beside): ms for (share, beside, rows), ms in self.times.items() if rows == 1}
        points = {share: ms for (share, beside), ms in whole.items() if share and beside == small}
        if small and (0.0, small) in whole:
            points.setdefault(1.0, self.large + whole[0.0, small])
        if not large or len(points) < 2:
            return None
        near, far = sorted(points, key=lambda share: abs(share - large))[:2]
        slope = (points[far] - points[near]) / (far - near)
        return max(0.0, points[near] + slope * (large - near))


def shares(step: PlannedStep, plan: Plan, tokens: int, held: float) -> Shares:
    """What a planned step computes of `tokens` image tokens per row, and of the rows, `held` where guidance is held."""
    if step.stage is not Stage.HYBRID:
        return LARGE_STEP if step.stage is Stage.LARGE else (0.0, 1.0, 1.0)
    large = 1.0 if step.full else mask_size(plan.hybrid.mask_ratio, tokens) / tokens
    small = 1.0 if step.full or plan.hybrid.small_scope == "all" else 1.0 - large
    return _rounded(large, small if step.small else 0.0, held if step.held else 1.0)


def _rounded(large: float, small: float, rows: float) -> Shares:
    return round(large, 2), round(small, 2), round(rows, 2)
