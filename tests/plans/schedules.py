"""Schedules and plans for tests."""

from __future__ import annotations

from itertools import groupby

from lib_hybridstitch.plans.plan import Kind, Plan, parse


def shifted(steps: int) -> tuple[float, ...]:
    """SD3's plain schedule, without its final 0."""
    return tuple(3 * (1 - i / steps) / (1 + 2 * (1 - i / steps)) for i in range(steps))


def written(text: str, sigmas: tuple[float, ...] | None = None) -> Plan:
    """The plan of a text form, as it is written: nothing is made safe."""
    first, _ = parse(text)
    assert first is not None
    return Plan(first.steps, sigmas or shifted(len(first.steps)), "test", first.score, first.hold)


def kinds(plan: Plan) -> str:
    """One letter per step."""
    return "".join(step.kind.value for step in plan.steps)


def longest_row(plan: Plan, kind: Kind, before: int | None = None) -> int:
    """How many steps of a kind follow one another, at most; among the first `before` steps."""
    groups = groupby(step.kind for step in plan.steps[:before])
    return max((len(list(group)) for found, group in groups if found is kind), default=0)
