"""What really happened in a pass."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from lib_hybridstitch.plans.plan import Kind


@dataclass(frozen=True)
class Record:
    """One call of the engine, or the calls of one evaluation put together.

    Args:
        evaluation: its number; calls of one evaluation (cond and uncond apart, say) share it.
        kind: what was done.
        sigma: noise level.
        rows: rows of the call.
        tokens: image tokens per row.
        tokens_large, tokens_small: tokens per row that each model computed, on average.
        rows_cached: rows that no model computed, since the CFG cache had their difference to the prompt's row.
        ms: time it took, in milliseconds.
    """

    evaluation: int
    kind: Kind
    sigma: float
    rows: int
    tokens: int
    tokens_large: float = 0.0
    tokens_small: float = 0.0
    rows_cached: int = 0
    ms: float = 0.0

    @property
    def shares(self) -> tuple[float, float]:
        """Share of all tokens of all rows that the large and the small model computed."""
        return self.tokens_large / self.tokens, self.tokens_small / self.tokens

    def joined(self, other: Record) -> Record:
        """This record and another call of the same evaluation.

        A call for which something was missing is a large or a small one, beside others of the planned kind.
        """
        rows = self.rows + other.rows

        def mean(name: str) -> float:
            return float((getattr(self, name) * self.rows + getattr(other, name) * other.rows) / rows)

        return replace(
            self,
            kind=other.kind if self.kind in (Kind.LARGE, Kind.SMALL) else self.kind,
            rows=rows,
            tokens_large=mean("tokens_large"),
            tokens_small=mean("tokens_small"),
            rows_cached=self.rows_cached + other.rows_cached,
            ms=self.ms + other.ms,
        )


@dataclass
class Report:
    """Everything a pass did, gathered while it went.

    Args:
        masks: evaluation → (images, N) bool: the tokens which the large model computed in masked steps.
        cache_bytes: largest memory of the cache.
        failure: why stitching ended early, or "".
    """

    masks: dict[int, Tensor] = field(default_factory=dict)
    cache_bytes: int = 0
    failure: str = ""
    _records: list[tuple[Record, Callable[[], float]]] = field(default_factory=list)

    def add(self, record: Record, took: Callable[[], float]) -> None:
        """Note a call; `took` is asked for its milliseconds when somebody wants to know."""
        self._records.append((record, took))

    def add_mask(self, evaluation: int, images: Sequence[int], tokens: Tensor, count: int) -> None:
        """Note which of `count` tokens the large model computed, (rows, K), and the picture of each row."""
        mask = self.masks.get(evaluation, torch.zeros(0, count, dtype=torch.bool))
        mask = functional.pad(mask, (0, 0, 0, max(0, 1 + max(images) - len(mask))))
        for image, chosen in zip(images, tokens.cpu(), strict=True):
            mask[image, chosen] = True
        self.masks[evaluation] = mask

    def evaluations(self) -> list[Record]:
        """One record per evaluation, its calls added up; waits for a GPU that is still at work."""
        merged: dict[int, Record] = {}
        for record, took in self._records:
            timed = replace(record, ms=took())
            known = merged.get(record.evaluation)
            merged[record.evaluation] = timed if known is None else known.joined(timed)
        return list(merged.values())


def stopwatch(device: torch.device) -> Callable[[], Callable[[], float]]:
    """Begin to time a call; the answer ends it, and returns what tells its milliseconds: only that waits for a GPU."""
    if device.type != "cuda":
        started = time.perf_counter()

        def stop() -> Callable[[], float]:
            ms = 1000 * (time.perf_counter() - started)
            return lambda: ms

        return stop
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()

    def stop_on_gpu() -> Callable[[], float]:
        end.record()

        def took() -> float:
            end.synchronize()
            return start.elapsed_time(end)

        return took

    return stop_on_gpu


def counted(records: Sequence[Record]) -> Counter[Kind]:
    """How many evaluations there were of each kind, in the order of their first."""
    return Counter(record.kind for record in records)


def mean_mask(records: Sequence[Record]) -> float:
    """Mean share of the tokens on the large model over the masked evaluations; 0 when there was none."""
    found = [record.shares[0] for record in records if record.kind is Kind.MASKED]
    return sum(found) / len(found) if found else 0.0
