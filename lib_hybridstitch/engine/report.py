"""What really happened in a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib_hybridstitch.plans.plan import Stage


@dataclass
class Record:
    """One call of the engine.

    Args:
        evaluation: its number; calls of one evaluation (cond and uncond apart, say) share it.
        stage: who was to compute it.
        sigma: noise level.
        rows: rows of the call.
        tokens: image tokens per row.
        tokens_large, tokens_small: tokens per row that each model computed, on average.
        rows_held: rows that no model computed, since they follow from their prompt's row and the guidance that is held.
        ms: time it took, in milliseconds.
    """

    evaluation: int
    stage: Stage
    sigma: float
    rows: int
    tokens: int
    tokens_large: float = 0.0
    tokens_small: float = 0.0
    ms: float = 0.0
    rows_held: int = 0

    @property
    def rows_computed(self) -> int:
        """Rows that some model computed."""
        return self.rows - self.rows_held

    def kept(self, tokens: float) -> float:
        """Tokens per computed row, of which `tokens` are the mean over all rows."""
        return tokens * self.rows / self.rows_computed if self.rows_computed else 0.0

    @property
    def full(self) -> bool:
        """Whether the large model computed every token of the rows that were computed."""
        return self.kept(self.tokens_large) >= self.tokens


@dataclass
class Report:
    """Everything a run did, gathered while it went.

    Args:
        records: one per call.
        masks: evaluation → (images, N) bool: the tokens which the large model computed in hybrid evaluations.
        cache_bytes: largest memory of the caches.
        failure: why stitching ended early, or "".
    """

    records: list[Record] = field(default_factory=list)
    masks: dict[int, Tensor] = field(default_factory=dict)
    cache_bytes: int = 0
    failure: str = ""
    _events: list[tuple[Record, torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list, repr=False)

    def begin(self, record: Record, device: torch.device) -> Callable[[], None]:
        """Time a call without waiting for a GPU; what is returned ends it and notes the record.

        The milliseconds of GPU calls are filled in by `settle`.
        """
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()

            def end_on_gpu() -> None:
                end.record()
                self._events.append((record, start, end))
                self.records.append(record)

            return end_on_gpu
        started = time.perf_counter()

        def end_on_cpu() -> None:
            record.ms = 1000 * (time.perf_counter() - started)
            self.records.append(record)

        return end_on_cpu

    def settle(self) -> None:
        """Wait for the GPU and fill in the milliseconds."""
        if self._events:
            torch.cuda.synchronize()
        for record, start, end in self._events:
            record.ms = start.elapsed_time(end)
        self._events.clear()

    def evaluations(self) -> list[Record]:
        """One record per evaluation, its calls added up."""
        self.settle()
        merged: dict[int, Record] = {}
        for record in self.records:
            if record.evaluation not in merged:
                merged[record.evaluation] = Record(**vars(record))
                continue
            whole = merged[record.evaluation]
            rows = whole.rows + record.rows
            for name in ("tokens_large", "tokens_small"):
                mean = (getattr(whole, name) * whole.rows + getattr(record, name) * record.rows) / rows
                setattr(whole, name, mean)
            whole.rows, whole.ms = rows, whole.ms + record.ms
            whole.rows_held += record.rows_held
        return list(merged.values())

    def mean_mask_ratio(self) -> float:
        """Share of tokens on the large model, over the hybrid evaluations; 0 when there was none."""
        hybrid = [record for record in self.evaluations() if record.stage is Stage.HYBRID]
        return sum(record.tokens_large / record.tokens for record in hybrid) / len(hybrid) if hybrid else 0.0
