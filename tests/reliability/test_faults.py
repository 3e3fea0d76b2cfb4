"""Whatever fails while a picture is sampled: it is finished, the user is told, and the host is as before."""

from __future__ import annotations

from types import FrameType
from typing import Any

from lib_hybridstitch.generation import summary
from tests.reliability import faults
from tests.reliability.attempts import SOME_PARTS, all_tried, at, interrupts
from tests.reliability.bench import STEPS, Bench, same

EVERY_PLAN = True


def test_an_error_in_any_network_in_any_step(bench: Bench, long_run: bool) -> None:
    """Of the large model's own pass it is the host's, which passes; in every other the large model finishes."""
    source = faults.Networks(bench, *(() if long_run else SOME_PARTS))
    found = faults.places(bench, source)
    chosen = found if long_run else found[len(found) % 7 :: 7]
    all_tried(bench, at(chosen, source, "exception", "out of memory", "old out of memory"))


def test_no_memory_at_any_line_of_the_engine(bench: Bench, long_run: bool) -> None:
    source = faults.Torch()
    found = faults.places(bench, source)
    assert len({place.site for place in found}) > 20
    chosen = found if long_run else faults.spread(found, 6)
    all_tried(bench, at(chosen, source, "out of memory", "no memory", "exception"))


def test_interrupts_pass_wherever_they_strike(bench: Bench, long_run: bool) -> None:
    """The host's own and Ctrl-C: nobody catches them, and they leave nothing behind."""
    networks, torch_calls = faults.Networks(bench, *SOME_PARTS), faults.Torch()
    every = 1 if long_run else 12
    parts, lines = faults.places(bench, networks)[::every], faults.spread(faults.places(bench, torch_calls), every)
    attempts = [*interrupts(bench, parts, networks), *interrupts(bench, lines, torch_calls)]
    attempts += at(lines[::2], torch_calls, "ctrl-c")
    all_tried(bench, attempts)


def test_what_is_no_number_ends_the_stitching(bench: Bench, long_run: bool) -> None:
    """NaN and infinity out of any part: of a large step they are the host's own; elsewhere the picture is finite."""
    parts = faults.Networks(bench, *(() if long_run else SOME_PARTS[1:])).parts
    wrong = []
    for name, part in parts.items():
        for call in range(1, STEPS, 1 if long_run else 5):
            for value in (float("nan"), float("inf")) if long_run else (float("nan"),):
                if found := _answered(bench, part, call, value):
                    wrong.append(f"call {call} of {name} gives {value}: {found}")
    assert not wrong, "\n".join(wrong)
    assert bench.afterwards() == []


def _answered(bench: Bench, part: Any, call: int, value: float) -> list[str]:
    struck: list[tuple[int, bool]] = []

    def noted(frames: list[FrameType]) -> None:
        struck.append((bench.done, faults.passes_through(frames)))

    outcome = bench.run(True, lambda _p: faults.answering(part, call, value, noted))
    picture, told = outcome.latents, str(outcome.infotext.get(summary.STOPPED))
    found = bench.left_behind(outcome)
    if struck and not struck[0][1]:
        if not any(same(picture, one) for one in (bench.expected(struck[0][0]), bench.on)):
            found.append(f"not the large model's picture from evaluation {struck[0][0]} on")
        if not same(picture, bench.on) and "not finite" not in told:
            found.append("nobody was told")
    return found
