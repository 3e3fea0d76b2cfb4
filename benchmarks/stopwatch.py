"""Time pieces of work that take turns, on a CPU or a GPU, and say what the memory peaked at."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Work = Callable[[], object]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Stopwatch:
    """Times work on one device.

    Args:
        device: where it computes; on a GPU the time between two CUDA events counts.
        until: the moment, by `time.monotonic`, after which no further round begins.
    """

    device: torch.device = CPU
    until: float = float("inf")

    def ms(self, work: Work) -> float:
        """Milliseconds of one piece of work, done to its end."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started)

    def clock(self, works: Mapping[str, Work], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
        """Milliseconds of each piece of work, taking turns; one timed round is certain, however late it is.

        Args:
            warm_up: rounds before those that count.
        """
        times: dict[str, list[float]] = {name: [] for name in works}
        for number in range(-warm_up, rounds):
            if number > 0 and time.monotonic() > self.until:
                break
            for name, work in works.items():
                spent = self.ms(work)
                if number >= 0:
                    times[name].append(spent)
        return times

    def peak(self, work: Work) -> int | None:
        """Most memory allocated on the GPU while it worked, in bytes; None where nothing counts it."""
        if self.device.type != "cuda":
            work()
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


def spread(values: Sequence[float]) -> tuple[float, list[float]]:
    """Median and quartiles; of a single value, that value."""
    if len(values) == 1:
        return values[0], [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), [low, high]


def over(times: Mapping[str, Sequence[float]], reference: str) -> dict[str, dict[str, Any]]:
    """Median time of each piece of work, and its ratio to the reference of the same round with quartiles."""
    rows = {}
    for name, values in times.items():
        ratio, quartiles = spread([a / b for a, b in zip(values, times[reference])])
        rows[name] = {
            "ms": round(statistics.median(values), 3),
            "ratio": round(ratio, 4),
            "ratio_quartiles": [round(value, 4) for value in quartiles],
            "rounds": len(values),
        }
    return rows
