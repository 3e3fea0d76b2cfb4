"""Rules that every plan keeps to, whoever wrote it.

What is not computed rests on what was: an extrapolation on the velocities before it, a masked step on cached keys and
values, a CFG cache on the last difference. A pass that has only begun has too little of that, and a pass of few steps
changes much from one step to the next.
"""

from __future__ import annotations

from dataclasses import replace

from lib_hybridstitch.plans.method import SHORT, USUAL_RUN, Run
from lib_hybridstitch.plans.plan import EXTRAPOLATED, LARGE, SMALL, Kind, Plan, Step

WHOLE = {Kind.CFG_CACHED: LARGE, Kind.SMALL_CFG_CACHED: SMALL}
"""What a CFG-cached step is where there is no negative prompt, no difference to it yet, or no time for it to hold."""
NEEDED = {Kind.EXTRAPOLATED: 2, Kind.MASKED: 2, Kind.CFG_CACHED: 3, Kind.SMALL_CFG_CACHED: 3}
"""How many large steps in a row a pass must have had before a step of this kind."""
STEPS_PER_GAP = 3.5
"""A pass may leave out one step in a row for so many that it has."""

BEGINNING = "The pass begins with more large steps than the plan names, because the others need something to rest on."
FROM_PICTURE = "The large model takes the last step, because this pass begins from a picture."
FEW_STEPS = "Fewer steps than usual are extrapolated, because this pass is so short."
ANCESTRAL = "Fewer steps than usual are extrapolated, because this sampler adds new noise in every step."


def secured(plan: Plan, run: Run) -> Plan:
    """The plan with what is not safe in it replaced by computed steps; its notes say so.

    A short pass holds velocities instead of following their trend, which changes too much from one step to the next.
    """
    cached = run.guided and not run.short
    steps = [step if cached else WHOLE.get(step.kind, step) for step in plan.steps]
    notes: list[str] = []
    if _secure_beginning(steps):
        notes.append(BEGINNING)
    few = run.steps < (SHORT if run.from_picture else USUAL_RUN) and EXTRAPOLATED in steps
    limited = _limit_gaps(steps, 1 if run.ancestral else max(1, int(run.steps / STEPS_PER_GAP)))
    if limited or few:
        notes.append(ANCESTRAL if limited and run.ancestral else FEW_STEPS)
    _secure_keys(steps)
    if run.from_picture and steps[-1].calls_small and LARGE in steps:
        steps[-1] = LARGE
        notes.append(FROM_PICTURE)
    made = replace(plan, steps=tuple(steps), notes=(*plan.notes, *notes))
    first = next((index for index in range(len(steps)) if made.calls_small(index)), None)
    if first is not None:
        steps[first] = WHOLE.get(steps[first].kind, steps[first])
    return replace(made, steps=tuple(steps), hold=plan.hold or run.short)


def _secure_beginning(steps: list[Step]) -> bool:
    """Make steps large whose kind rests on more large steps in a row than there have been; whether any was."""
    changed, most, row = False, {Kind.LARGE: 0, Kind.SMALL: 0}, 0
    previous: Kind | None = None
    for index, step in enumerate(steps):
        enough = most[Kind.LARGE] >= NEEDED.get(step.kind, 0)
        if step.kind in (Kind.EXTRAPOLATED, Kind.SMALL_CFG_CACHED):  # either may rest on the small model's steps too
            enough = enough or most[Kind.SMALL] >= NEEDED[step.kind]
        if not enough:
            steps[index], changed = LARGE, True
        kind = steps[index].kind
        row = row + 1 if kind is previous else 1
        previous = kind
        if kind in most:
            most[kind] = max(most[kind], row)
    return changed


def _limit_gaps(steps: list[Step], longest: int) -> bool:
    """Compute every extrapolated step that follows `longest` others, as the last computed one; whether any was."""
    changed, gap, anchor = False, 0, LARGE
    for index, step in enumerate(steps):
        if step.kind is not Kind.EXTRAPOLATED:
            gap, anchor = 0, step
        elif gap == longest:
            steps[index], changed, gap = anchor, True, 0
        else:
            gap += 1
    return changed


def _secure_keys(steps: list[Step]) -> None:
    """A masked step rests on keys of all rows and tokens, which the large step before it makes.

    Where that step would leave rows out it becomes large; where the small model comes before, the masked step does.
    """
    known, before = False, 0
    for index, step in enumerate(steps):
        if step.kind is Kind.MASKED:
            if steps[before].kind is Kind.CFG_CACHED:
                steps[before] = LARGE
            known = known or steps[before].kind is Kind.LARGE
            if not known:
                steps[index] = LARGE
        if step.kind is not Kind.EXTRAPOLATED:
            before = index
