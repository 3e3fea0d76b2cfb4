"""What the steps of a plan compute, and how many floating-point operations that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lib_hybridstitch.engine.masks import mask_size
from lib_hybridstitch.mmdit.config import MLP_RATIO, TIME_FREQUENCIES, MMDiTConfig
from lib_hybridstitch.plans.plan import Kind, Plan


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


class Work(NamedTuple):
    """What a step computes, rounded so that equal steps are equal.

    Args:
        large, small: share of the tokens that each model computes.
        rows: share of the rows that is computed at all.
    """

    large: float
    small: float
    rows: float = 1.0


FULL = Work(1.0, 0.0)
"""The large model alone on everything."""
UNKNOWN_SMALL = 0.36
"""What a small model of unknown architecture is taken to cost: SD3.5-Medium's share of SD3.5-Large."""


@dataclass(frozen=True)
class Setup:
    """What a step costs depends on, beside the plan.

    Args:
        large, small: the networks; small is None where there is none, or its architecture is not known.
        tokens, context: image and text tokens per row.
        images: pictures of the batch.
        streams: rows per picture: 2 with guidance, 1 without, more with AND.
        kv_cache, small_device: the settings of these names.
    """

    large: MMDiTConfig
    small: MMDiTConfig | None
    tokens: int
    context: int
    images: int
    streams: int
    kv_cache: str = "full"
    small_device: str = "keep"

    @property
    def rows(self) -> int:
        """Rows of an evaluation."""
        return self.images * self.streams

    def work(self, plan: Plan, index: int) -> Work:
        """What step `index` of a plan computes."""
        step = plan.steps[index]
        small = float(plan.calls_small(index))
        cached = (self.streams - 1) / self.streams if self.streams > 1 else 1.0
        if step.kind is Kind.MASKED:
            return Work(round(mask_size(step.ratio, self.tokens) / self.tokens, 2), small)
        if step.kind in (Kind.CFG_CACHED, Kind.SMALL_CFG_CACHED):
            return Work(1.0 - small, small, round(cached, 2))
        return Work(float(step.kind is Kind.LARGE), small)

    def flops(self, work: Work) -> float:
        """Operations of a step that computes `work`."""

        def counted(config: MMDiTConfig, share: float) -> int:
            return pass_flops(config, mask_size(share, self.tokens), self.tokens, self.context, self.rows)

        small = counted(self.small, work.small) if self.small else UNKNOWN_SMALL * counted(self.large, work.small)
        return work.rows * (counted(self.large, work.large) + small)
