"""Which steps are computed, where only a part of them is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.profile import Profile, log_snr

GROWTH = 1.5
"""How the gaps between computed steps widen towards the end: 1 would keep them even."""
LAYOUT_STEPS, LAYOUT_SHARE, LAYOUT_MOST = 8, 0.29, 0.45
"""A run from noise begins with so many computed steps, or that share of a longer one, but at most the second share."""
DENSE = 0.5
"""Share of the computed steps that a pass from a picture begins with, one after the other."""
BEHIND = 0.15
"""So many computed steps at least, as a share of all steps, lie behind the dense beginning of a run from noise."""


def growing(steps: int, computed: int) -> tuple[int, ...]:
    """Spread `computed` of `steps` steps behind a computed one, with gaps that grow; the last step is among them.

    Needs no knowledge of the model: the velocity changes ever more slowly as the picture settles, but for the last
    steps, whose errors are seen as they are. While there is room no two of them are neighbours.

    Returns:
        indices in 0..steps − 1, ascending.
    """
    computed = min(computed, steps)
    apart = 2 if 2 * computed <= steps else 1
    chosen: list[int] = []
    for number in range(1, computed + 1):
        wanted = round(steps * (number / computed) ** GROWTH) - 1
        earliest = chosen[-1] + apart if chosen else apart - 1
        chosen.append(min(max(wanted, earliest), steps - 1 - apart * (computed - number)))
    return tuple(chosen)


def placed(run: Run, computed: int) -> tuple[int, ...]:
    """Choose which steps a model computes: a dense beginning, then as the run's profile says, or growing gaps.

    Every second step behind the beginning is left out before the beginning gets longer: on the demo's pair 8 dense
    steps of 28 and two more with gaps keep the layout as well as 10 dense ones.

    Args:
        computed: how many; at least the beginning and the last.

    Returns:
        indices, ascending.
    """
    steps = run.steps
    if computed >= steps or steps <= 3:
        return tuple(range(steps))
    computed = max(computed, 3)
    if run.from_picture:
        dense = max(2, round(DENSE * computed))
    else:
        layout = min(max(LAYOUT_STEPS, round(LAYOUT_SHARE * steps)), math.ceil(LAYOUT_MOST * steps))
        dense = max(2, min(layout, computed - round(BEHIND * steps)), 2 * computed - steps)
    behind = computed - dense
    chosen = growing(steps - dense, behind)
    if run.profile is not None:
        chosen = _least_error(run.sigmas, dense, behind, run.profile)
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
