"""The cells of the matrix: which settings of a generation are measured, and the noise levels that they sample."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from hybridstitch_demo.generate import shifted

CELL_SEED = 70411
SPREAD = 60
"""Cells that are spread over all factors, beside the named ones."""
TRIES = 200
STEPS = (8, 12, 20, 28, 40)
GUIDANCES = (1.0, 2.5, 4.5, 7.0)
SAMPLERS = ("Euler", "DPM++ 2M", "Heun", "Euler a")
SHIFTS = (3.0, 6.0)
SIZES = (128, 128, 160)
"""Edges in pixels, as often as they stand here: what the pair learnt, and what it still draws as it should."""
TXT2IMG, IMG2IMG, INPAINTING, HIRES = "txt2img", "img2img", "inpainting", "hires"
KINDS = (
    *[(TXT2IMG, 1.0)] * 3,
    *((IMG2IMG, strength) for strength in (0.3, 0.4, 0.5, 0.6, 0.75)),
    *((INPAINTING, strength) for strength in (0.5, 0.75)),
    *((HIRES, strength) for strength in (0.5, 0.7)),
)
"""Kind and denoising strength, each as often as it stands here."""
MOST_STRENGTH = 0.999
"""The hosts treat a strength of 1 as this."""


@dataclass(frozen=True)
class Cell:
    """One combination of settings.

    Args:
        steps: as the user sets them; of hires, those of the second pass, which alone is measured.
        guidance: scale of classifier-free guidance.
        sampler: one of `SAMPLERS`.
        shift: of the schedule.
        kind: txt2img, img2img, inpainting or hires.
        strength: denoising strength; 1 for txt2img.
        size: edge of the pictures in pixels.
    """

    steps: int
    guidance: float
    sampler: str
    shift: float
    kind: str
    strength: float
    size: int

    @property
    def name(self) -> str:
        """What the tables call the cell."""
        kind = self.kind if self.kind == TXT2IMG else f"{self.kind} {self.strength:g}"
        return (
            f"{kind}, {self.sampler}, {self.steps} steps, guidance {self.guidance:g}, "
            f"shift {self.shift:g}, {self.size} px"
        )

    def levels(self, steps: int | None = None) -> tuple[float, ...]:
        """The noise levels that are sampled, descending to the final 0, by the hosts' arithmetic.

        Args:
            steps: as the user would set them; the cell's own if left out.
        """
        steps = steps or self.steps
        strength = min(self.strength, MOST_STRENGTH)
        if self.kind == HIRES:  # all of its steps are sampled, of a schedule that has more
            return schedule(int(steps / strength), self.shift)[-steps - 1 :]
        sampled = steps if self.kind == TXT2IMG else int(strength * steps) + 1
        return schedule(steps, self.shift)[-sampled - 1 :]

    def fewer(self, sampled: int) -> tuple[float, ...]:
        """The levels of fewer steps by the same rule, `sampled` of them or the next fewer that there can be.

        Of several numbers of steps that sample as many, the one that begins nearest to where the cell does.
        """
        begins = self.levels()[0]
        found = [self.levels(steps) for steps in range(1, self.steps + 1)]
        most = max(len(levels) for levels in found if len(levels) <= max(sampled, 1) + 1)
        return min((one for one in found if len(one) == most), key=lambda one: abs(one[0] - begins))


def schedule(steps: int, shift: float) -> tuple[float, ...]:
    """Noise levels of a whole run, from 1 to the final 0."""
    return tuple(shifted(1 - step / steps, shift) for step in range(steps + 1))


def cells() -> list[Cell]:
    """Those spread over all factors, and those named because they broke before; always the same."""
    return list(dict.fromkeys([*spread(), *named()]))


def spread() -> list[Cell]:
    """Cells in which every value of a factor occurs as often as any other, and every pair of values about as often.

    Each factor is a column in which its values take turns; of several shuffles of the columns the most even one counts.
    """
    source = random.Random(CELL_SEED)
    factors: tuple[Sequence[Any], ...] = (STEPS, GUIDANCES, SAMPLERS, SHIFTS, KINDS, SIZES)
    columns = [[values[index % len(values)] for index in range(SPREAD)] for values in factors]
    tried = []
    for _ in range(TRIES):
        shuffled = zip(*(source.sample(column, SPREAD) for column in columns))
        tried.append(
            [
                Cell(steps, guidance, sampler, shift, kind, strength, size)
                for steps, guidance, sampler, shift, (kind, strength), size in shuffled
            ]
        )
    return min(tried, key=_unevenness)


def _unevenness(found: Sequence[Cell]) -> int:
    """Sum of squares of how often each pair of values occurs."""
    columns = zip(*map(astuple, found))
    pairs = (Counter(zip(first, second)) for first, second in itertools.combinations(columns, 2))
    return sum(count * count for pair in pairs for count in pair.values())


def named() -> list[Cell]:
    """What broke in earlier versions: short passes from pictures, few steps, shift 6, guidance 7, fresh noise."""
    usual = Cell(20, 4.5, "Euler", 3.0, TXT2IMG, 1.0, 128)
    from_pictures = [(20, 0.3), (20, 0.4), (20, 0.5), (20, 0.6), (15, 0.3), (15, 0.5)]
    return [
        *(replace(usual, steps=steps, kind=IMG2IMG, strength=strength) for steps, strength in from_pictures),
        replace(usual, kind=INPAINTING, strength=0.5),
        replace(usual, kind=IMG2IMG, strength=0.5, sampler="Euler a", guidance=7.0, shift=6.0),
        usual,
        replace(usual, steps=15),
        replace(usual, shift=6.0),
        replace(usual, steps=28, shift=6.0),
        replace(usual, guidance=7.0),
        replace(usual, sampler="Euler a"),
        replace(usual, steps=28, guidance=7.0, sampler="Euler a"),
    ]
