"""What steps really took, so that a prediction rests on this machine's own times once there are any."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from statistics import median

from lib_hybridstitch.engine.report import Record
from lib_hybridstitch.prediction.operations import FULL, Setup, Work

KEPT_SETUPS = 32
KEPT_PASSES = 5

Times = Mapping[Work, float]
"""What a step computes → milliseconds. A large step is always among them."""


class Timings:
    """Milliseconds per step, by setup and by what a step computes; the oldest setups are forgotten.

    Predictions ask from any thread while a generation is measured.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Setup, dict[Work, deque[float]]] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, setup: Setup, records: Sequence[Record]) -> None:
        """Remember the evaluations of a pass: the median of each sort, so that a first slow step counts for little."""
        times: dict[Work, list[float]] = defaultdict(list)
        for record in records:
            times[_work_of(record)].append(record.ms)
        with self._lock:
            known = self._known.setdefault(setup, {})
            self._known.move_to_end(setup)
            while len(self._known) > KEPT_SETUPS:
                self._known.popitem(last=False)
            for work, found in times.items():
                known.setdefault(work, deque(maxlen=KEPT_PASSES)).append(median(found))

    def clear(self) -> None:
        """Forget everything, since other weights compute now."""
        with self._lock:
            self._known.clear()

    def of(self, setup: Setup) -> Times | None:
        """The times of a setup; None before its large step has been measured."""
        with self._lock:
            times = {work: median(found) for work, found in self._known.get(setup, {}).items()}
        return times if times.get(FULL) else None


def step_ms(times: Times, setup: Setup, work: Work) -> float:
    """Milliseconds of a step: measured, else read off steps like it, else counted in relation to a large one."""
    if work in times:
        return times[work]
    if not work.large and not work.small:
        return 0.0
    alike = _on_the_line(times, work)
    return setup.flops(work) / setup.flops(FULL) * times[FULL] if alike is None else alike


def _on_the_line(times: Times, wanted: Work) -> float | None:
    """Milliseconds of a masked step of another ratio than were measured, on a line through the two nearest.

    A pass takes some time however few its tokens are, and beyond that a time in proportion to them. At small sizes
    the first part is most of it, which no count of operations knows.
    """
    points = {work.large: ms for work, ms in times.items() if work.large and work[1:] == wanted[1:]}
    if wanted.small and (small := Work(0.0, wanted.small)) in times:
        points.setdefault(1.0, times[FULL] + times[small])
    if not wanted.large or len(points) < 2:
        return None
    near, far = sorted(points, key=lambda share: abs(share - wanted.large))[:2]
    slope = (points[far] - points[near]) / (far - near)
    return max(0.0, points[near] + slope * (wanted.large - near))


def _work_of(record: Record) -> Work:
    """What an evaluation computed, as `Setup.work` says it of a planned step."""
    computed = record.rows - record.rows_cached
    large, small = (share * record.rows / computed if computed else 0.0 for share in record.shares)
    return Work(round(large, 2), round(small, 2), round(computed / record.rows, 2))
