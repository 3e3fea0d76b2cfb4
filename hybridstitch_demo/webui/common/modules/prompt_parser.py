"""Prompts over time: `[a:b:0.5]` editing, `AND`, and what the sampler makes of them at a step."""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

RE_EDIT = re.compile(r"\[(?:([^\[\]:|]*):)?([^\[\]:|]*):\s*([\d.]+)\s*\]")
RE_AND = re.compile(r"\bAND\b")
RE_WEIGHT = re.compile(r"^((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$")
ScheduledPromptConditioning = namedtuple("ScheduledPromptConditioning", ["end_at_step", "cond"])


class SdConditioning(list[str]):
    """Prompts, and what the text encoder may want to know of the picture."""

    def __init__(
        self,
        prompts: Sequence[str],
        is_negative_prompt: bool = False,
        width: int | None = None,
        height: int | None = None,
        copy_from: Any = None,
        distilled_cfg_scale: float | None = None,
    ) -> None:
        super().__init__(prompts)
        source = prompts if copy_from is None else copy_from
        self.is_negative_prompt = is_negative_prompt or getattr(source, "is_negative_prompt", False)
        self.width = width or getattr(source, "width", None)
        self.height = height or getattr(source, "height", None)


class ComposableScheduledPromptConditioning:
    """One part of an AND: its texts over time, and its weight."""

    def __init__(self, schedules: list[Any], weight: float = 1.0) -> None:
        self.schedules, self.weight = schedules, weight


class MulticondLearnedConditioning:
    """Per image, the parts of its AND."""

    def __init__(self, shape: tuple[int, ...], batch: list[list[ComposableScheduledPromptConditioning]]) -> None:
        self.shape, self.batch = shape, batch


class DictWithShape(dict[str, Tensor]):
    """Text as tensors by name, with the shape of the tokens."""

    def __init__(self, x: dict[str, Tensor], shape: Any = None) -> None:
        super().__init__(x)

    @property
    def shape(self) -> torch.Size:
        """Of the text tokens."""
        return self["crossattn"].shape

    def advanced_indexing(self, item: Any) -> DictWithShape:
        """Some of its rows."""
        return DictWithShape({key: value[item] for key, value in self.items()})


def get_learned_conditioning_prompt_schedules(
    prompts: Sequence[str], base_steps: int, hires_steps: int | None = None, use_old_scheduling: bool = False
) -> list[list[list[Any]]]:
    """Per prompt, its texts with the step until which each holds; fractions above 1 belong to the hires pass."""
    steps = base_steps if hires_steps is None else hires_steps

    def when(number: str) -> int:
        if hires_steps is None:
            value = float(number) * steps if "." in number else float(number)
        else:
            value = (float(number) - 1.0) * steps if "." in number else float(number) - base_steps
        return min(steps, int(value))

    def at(step: int, prompt: str) -> str:
        return RE_EDIT.sub(lambda found: (found[1] or "") if step <= when(found[3]) else found[2], prompt)

    def schedule(prompt: str) -> list[list[Any]]:
        ends = {steps, *(when(found[3]) for found in RE_EDIT.finditer(prompt) if when(found[3]) >= 1)}
        return [[end, at(end, prompt)] for end in sorted(ends)]

    return [schedule(prompt) for prompt in prompts]


def get_learned_conditioning(
    model: Any,
    prompts: Sequence[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> list[list[Any]]:
    """Encode every text of every prompt."""
    result = []
    for schedule in get_learned_conditioning_prompt_schedules(prompts, steps, hires_steps):
        conds = model.get_learned_conditioning(SdConditioning([text for _, text in schedule], copy_from=prompts))
        rows = [{key: value[index] for key, value in conds.items()} for index in range(len(schedule))]
        result.append([ScheduledPromptConditioning(end, row) for (end, _), row in zip(schedule, rows)])
    return result


def get_multicond_learned_conditioning(
    model: Any,
    prompts: Sequence[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> MulticondLearnedConditioning:
    """Split prompts at AND, take the weights off, and encode each different text once."""
    flat = SdConditioning([], copy_from=prompts)
    known: dict[str, int] = {}
    indexes: list[list[tuple[int, float]]] = []
    for prompt in prompts:
        found = [RE_WEIGHT.search(part) for part in RE_AND.split(prompt)]
        parts = [(match[1], float(match[2] or 1.0)) for match in found if match]
        for text, _ in parts:
            if text not in known:
                known[text] = len(flat)
                flat.append(text)
        indexes.append([(known[text], weight) for text, weight in parts])
    learned = get_learned_conditioning(model, flat, steps, hires_steps)
    batch = [[ComposableScheduledPromptConditioning(learned[i], weight) for i, weight in one] for one in indexes]
    return MulticondLearnedConditioning((len(prompts),), batch)


def _now(schedules: Sequence[Any], step: int) -> dict[str, Tensor]:
    return next((entry.cond for entry in schedules if step <= entry.end_at_step), schedules[0].cond)


def reconstruct_cond_batch(c: list[list[Any]], current_step: int) -> DictWithShape:
    """The negative prompts' text at a step, one row per image."""
    rows = [_now(schedules, current_step) for schedules in c]
    return DictWithShape({key: torch.stack([row[key] for row in rows]) for key in rows[0]})


def stack_conds(tensors: list[Tensor]) -> Tensor:
    """Stack texts; shorter ones repeat their last token."""
    longest = max(tensor.shape[0] for tensor in tensors)
    return torch.stack([torch.cat([t, t[-1:].repeat(longest - t.shape[0], 1)]) for t in tensors])


def reconstruct_multicond_batch(
    c: MulticondLearnedConditioning, current_step: int
) -> tuple[list[list[tuple[int, float]]], DictWithShape]:
    """Per image (row, weight) of each part of its AND, and the text of all rows, at a step."""
    rows: list[dict[str, Tensor]] = []
    indexes = []
    for parts in c.batch:
        indexes.append([(len(rows) + i, part.weight) for i, part in enumerate(parts)])
        rows += [_now(part.schedules, current_step) for part in parts]
    tokens = stack_conds([row["crossattn"] for row in rows])
    vectors = torch.stack([row["vector"] for row in rows])
    return indexes, DictWithShape({"crossattn": tokens, "vector": vectors})
