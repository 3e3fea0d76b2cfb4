"""Which steps are computed, where only a part of them is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lib_hybridstitch.plans.profile import Profile, log_snr

GROWTH = 1.5
"""How the gaps between computed steps widen towards the end: 1 would keep them even."""
DENSE = 0.5
"""Share of the computed steps that a run begins with, one after the other, while the layout is decided."""


def growing(steps: int, computed: int) -> tuple[int, ...]:
    """Spread `computed` of `steps` steps behind a computed one, with gaps that grow; the last step is among them.

    Needs no knowledge of the model: the velocity changes ever more slowly as the picture settles, but for the last
    steps, whose errors are seen as they are.

    Returns:
        indices in 0..steps − 1, ascending.
    """
    computed = min(computed, steps)
    chosen: list[int] = []
    for number in range(1, computed + 1):
        wanted = round(steps * (number / computed) ** GROWTH) - 1
        earliest = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(wanted, earliest), steps - 1 - (computed - number)))
    return tuple(chosen)


def placed(
    sigmas: Sequence[float], computed: int, profile: Profile | None = None, beginning: int = 2
) -> tuple[int, ...]:
    """Choose which steps the large model computes: a dense beginning, then as `profile` says, or growing gaps.

    Args:
        sigmas: the noise levels that are sampled, descending.
        computed: how many; at least the beginning and the last.
        beginning: at least so many in a row to begin with.

    Returns:
        indices, ascending.
    """
    steps = len(sigmas)
    if computed >= steps or steps <= 3:
        return tuple(range(steps))
    computed = max(computed, beginning + 1)
    dense = max(beginning, round(DENSE * computed))
    behind = computed - dense
    chosen = growing(steps - dense, behind)
    if profile is not None:
        chosen = _least_error(sigmas, dense, behind, profile)
    return (*range(dense), *(dense + index for index in chosen))


def _least_error(sigmas: Sequence[float], dense: int, behind: int, profile: Profile) -> tuple[int, ...]:
    """Choose `behind` steps after the first `dense` so that the expected error of all others is least.

    Dynamic programming over the steps, for every number of computed steps at once; the computed step before the last
    one is taken to lie as far back in λ as the next one lies ahead, which keeps it quadratic.

    Returns:
        indices counted from `dense`, ascending; the last step is among them.
    """
    levels = [log_snr(sigma) for sigma in sigmas]
    strain = [profile.strain(sigmas, step) for step in range(len(sigmas))]
    first, end = dense - 1, len(sigmas) - 1
    best: list[dict[int, tuple[float, int]]] = [{} for _ in sigmas]
    best[first][0] = (0.0, first)
    for here in range(first, end):
        square = linear = 0.0  # of all steps between: strain · reach², strain · reach
        for after in range(here + 1, end + 1):
            reach = levels[after] - levels[here]
            more = (square + linear * reach) / 2  # Σ strain · (λ − λ_here) · (λ − λ_before) / 2
            for used, (error, _) in best[here].items():
                if used < behind and error + more < best[after].get(used + 1, (math.inf, 0))[0]:
                    best[after][used + 1] = (error + more, here)
            square, linear = square + strain[after] * reach**2, linear + strain[after] * reach
    chosen, step = [], end
    for used in range(behind, 0, -1):
        chosen.append(step - dense)
        step = best[step][used][1]
    return tuple(reversed(chosen))
