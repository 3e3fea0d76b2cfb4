"""Text for calls of the model: which texts may share a call, and how they are joined."""

from __future__ import annotations

from math import lcm
from typing import Any

import torch
from torch import Tensor


class Condition:
    """Something with a row per image."""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond

    def can_concat(self, other: Condition) -> bool:
        """Whether both may share a call."""
        return self.cond.shape == other.cond.shape

    def concat(self, others: list[Condition]) -> Tensor:
        """All rows."""
        return torch.cat([self.cond, *(other.cond for other in others)])


class ConditionCrossAttn(Condition):
    """Text tokens: of different lengths too, if repeating them up to four times makes them equal."""

    def can_concat(self, other: Condition) -> bool:
        """Whether both may share a call."""
        mine, theirs = self.cond.shape, other.cond.shape
        if mine[0] != theirs[0] or mine[2] != theirs[2]:
            return False
        return lcm(mine[1], theirs[1]) // min(mine[1], theirs[1]) <= 4

    def concat(self, others: list[Condition]) -> Tensor:
        """All rows, repeated to a common length."""
        conds = [self.cond, *(other.cond for other in others)]
        length = lcm(*(cond.shape[1] for cond in conds))
        return torch.cat([cond.repeat(1, length // cond.shape[1], 1) for cond in conds])


def compile_conditions(cond: Any) -> Any:
    """Text as the sampling function wants it."""
    if cond is None:
        return None
    tokens, vectors = cond["crossattn"], cond["vector"]
    model_conds = {"c_crossattn": ConditionCrossAttn(tokens), "y": Condition(vectors)}
    return [{"cross_attn": tokens, "pooled_output": vectors, "model_conds": model_conds}]


def compile_weighted_conditions(cond: Any, weights: list[list[tuple[int, float]]]) -> list[dict[str, Any]]:
    """The same for each part of AND, over all images."""
    results = []
    for part in zip(*weights):
        compiled = compile_conditions(cond.advanced_indexing([index for index, _ in part]))
        compiled[0]["strength"] = part[-1][1]
        results += compiled
    return results
