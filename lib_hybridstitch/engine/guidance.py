"""Guidance held: rows without prompt follow from their prompt's fresh row, by the difference that they last had to it.

Late in a run guidance changes little from step to step, so that half of a pass can be spared: Castillo et al. (arXiv
2312.12487) leave it out altogether there, Kynkäänniemi et al. (arXiv 2404.07724) limit it to an interval of noise
levels. Here what it adds stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import COND, UNCOND, Row
from lib_hybridstitch.engine.state import RunState


def remember(state: RunState, rows: Sequence[Row], sigma: float) -> None:
    """Keep the difference of the pictures whose rows with and without prompt are both known in whole at `sigma`."""
    for image in {image for image, _ in rows}:
        cond, uncond = (state.rows.get((image, stream)) for stream in (COND, UNCOND))
        if cond and uncond and cond.whole_at == uncond.whole_at == sigma:
            state.image(image).guidance = uncond.velocity - cond.velocity


def followers(state: RunState, rows: Sequence[Row], sigma: float) -> list[int]:
    """Which rows of a call follow from others, by index: those without prompt whose difference is known.

    A host may call for the streams apart. A row whose prompt's is still to come cannot wait for it, and is none.
    """
    known = {row for row, its in state.rows.items() if its.whole_at == sigma}.union(rows)
    return [
        index
        for index, (image, stream) in enumerate(rows)
        if stream == UNCOND and (image, COND) in known and state.image(image).guidance is not None
    ]


def joined(state: RunState, rows: Sequence[Row], fresh: Mapping[Row, Tensor]) -> Tensor:
    """All rows of a call, patches (rows, N, width): the fresh ones, (N, width) each, and those that follow."""
    velocities = []
    for image, stream in rows:
        velocity = fresh.get((image, stream))
        if velocity is None:
            held = state.image(image).guidance
            prompt = fresh.get((image, COND))
            assert held is not None, "only rows with a known difference follow"
            velocity = held + (state.rows[image, COND].velocity if prompt is None else prompt)
        velocities.append(velocity)
    return torch.stack(velocities)
