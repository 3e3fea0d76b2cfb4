"""Whatever fails, wherever: the picture is finished, the user is told, and the host is as before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

import pytest
from torch import nn

from lib_hybridstitch.generation import summary
from tests.reliability import faults
from tests.reliability.bench import PLAN, PLANS, STEPS, Bench, Outcome, same
from tests.reliability.faults import KINDS, Fault, Place

Attempt = tuple[str, BaseException, bool, Callable[[Fault], AbstractContextManager[Any]]]

DOORS = {
    ("hosts/patch.py", "replacement"),
    ("hosts/a1111.py", "forward"),
    ("hosts/forge.py", "wrapper"),
    ("hosts/forge.py", "<lambda>"),
    ("hosts/forge.py", "_stitched"),
    ("hosts/generation.py", "sample"),
    ("hosts/generation.py", "guarded"),
    ("stitch/stitcher.py", "velocity"),
    ("stitch/stitcher.py", "guarded"),
    ("webui/extension.py", "process"),
    ("webui/extension.py", "process_batch"),
    ("webui/extension.py", "process_before_every_sampling"),
    ("webui/extension.py", "on_cfg_denoiser"),
    ("webui/extension.py", "_guarded"),
}
"""Where the host calls us: what is raised on the very first line of these nobody of ours can catch."""
TELLING = {"end_batch", "report", "_finished", "postprocess", "before_process", "_forget"}
"""Where the picture is done, or not begun: the log alone is sure to know."""


@pytest.fixture(scope="module", params=PLANS)
def plan(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Every way in which a step can be made."""
    return PLANS[request.param]


class Watched:
    """One fault and what it did.

    Args:
        bench: where.
        error: what is raised.
    """

    def __init__(self, bench: Bench, error: BaseException) -> None:
        self.bench = bench
        self.fault = Fault(error, self.noted)
        self.evaluations = -1
        self.hosts_own = self.telling = False

    def noted(self, frames: list[FrameType]) -> None:
        """Called when it strikes."""
        self.evaluations = self.bench.done
        self.hosts_own = faults.of_the_large_alone(frames)
        names = [frame.f_code.co_name for frame in frames if faults.ours(frame)]
        self.telling = bool(TELLING & set(names))

    def run(self, during: AbstractContextManager[Any]) -> Outcome:
        """A stitched generation with the fault in it."""
        outcome = self.bench.run(True, lambda: during)
        self.fault.error.__traceback__ = self.fault.error.__context__ = None  # they hold every frame's tensors
        return outcome


def taken_wrongly(watched: Watched, outcome: Outcome, door: bool) -> list[str]:
    """What is wrong with how a generation took a fault."""
    error, bench, found = watched.fault.error, watched.bench, []
    interrupt = not isinstance(error, Exception)
    if outcome.raised is not None:
        if outcome.raised is not error:
            found.append(f"raised {outcome.raised!r}")
        if not (interrupt or watched.hosts_own or door):
            found.append("the host got an error of ours")
    elif not interrupt and door:
        if error not in outcome.swallowed and not any(str(error) in line for line in outcome.log):
            found.append("nobody was told")
    elif not interrupt:
        wanted = [bench.expected[watched.evaluations], *([bench.on] if watched.telling else [])]
        if not any(same(outcome.latents, one) for one in wanted):
            found.append(f"not the large model's picture from evaluation {watched.evaluations} on")
        found += _untold(watched, outcome)
    return found


def _untold(watched: Watched, outcome: Outcome) -> list[str]:
    words, found = str(watched.fault.error), []
    lines = [line for line in outcome.log if words in line]
    if len(lines) != 1 and not (watched.telling and watched.fault.error in outcome.swallowed):
        found.append(f"the log tells it {len(lines)} times")
    if watched.telling:
        return found
    if words not in str(outcome.infotext.get(summary.STOPPED)):
        found.append("infotext does not tell")
    if not any(words in comment for comment in outcome.comments):
        found.append("nothing below the picture")
    if words not in (watched.bench.web.extension.last_run or {}).get("stopped", ""):
        found.append("the last run's figures do not tell")
    return found


def places_of(bench: Bench) -> list[Place]:
    """Every call of ours in one generation."""
    places: list[Place] = []
    bench.run(True, lambda: faults.recording(places))
    assert len({place.file for place in places}) > 10, "the whole extension ran"
    return places


def places_of_its_own(bench: Bench) -> list[Place]:
    """Every call, in one generation, of the functions that only this plan calls; of the usual plan, every call."""
    places = places_of(bench)
    if bench.usual:
        return places
    with bench.under(PLAN):
        usual = {(place.file, place.line, place.name) for place in places_of(bench)}
    return [place for place in places if (place.file, place.line, place.name) not in usual]


def chosen(places: list[Place], all_of_them: bool, every: int) -> list[Place]:
    """Which calls are tried: the first of each function; the last one too where all are wanted."""
    first = [place for place in places if place.call == 1]
    if not all_of_them:
        return first[::every]
    # What a generator raises while it is closed Python itself drops, so the last call of one is not tried.
    last = {(place.file, place.line, place.name): place for place in places if place.name != "<genexpr>"}
    return sorted({*first, *last.values()})


def is_door(place: Place) -> bool:
    """Whether nothing of ours is above that place to catch what it raises."""
    if place.file.startswith("scripts/"):
        return True
    return any(place.file.endswith(file) and place.name == name for file, name in DOORS)


def tried(
    bench: Bench,
    attempts: Iterable[Attempt],
    every_after: int,
    beside: Callable[[], AbstractContextManager[Any]] = nullcontext,
    foreign_sample: bool = False,
) -> tuple[int, int]:
    """Put faults into generations one at a time; fails with all that went wrong. Returns how many, and how many struck.

    Args:
        attempts: name, error, whether it is at a door, and what makes the fault when it is given one.
        every_after: look at the next generations, with and without HybridStitch, after each so many.
        beside: another extension around each generation. It may put back what it found, ours without effect by then,
            so what is left behind is looked at after one more generation.
        foreign_sample: whether that extension leaves its own `p.sample`.
    """
    wrong: dict[str, list[str]] = {}
    count = struck = 0
    for count, (name, error, door, during) in enumerate(attempts, 1):
        watched = Watched(bench, error)
        with beside():
            outcome = watched.run(during(watched.fault))
        struck += watched.fault.done
        found = taken_wrongly(watched, outcome, door) if watched.fault.done else []
        if beside is not nullcontext:
            bench.run(True)
        found += bench.left_behind(outcome, foreign_sample or (door and watched.fault.done))
        if found or count % every_after == 0:
            found += bench.afterwards()
        if found:
            wrong[name] = found
    print(f"{bench.host.name}: {count} faults, {struck} struck, {len(wrong)} wrong")
    assert not wrong, "\n".join(f"{name}: {'; '.join(found)}" for name, found in wrong.items())
    return count, struck


def at(place: Place, kind: str) -> Attempt:
    """A fault at a call of ours."""
    return (f"{kind} at {place}", KINDS[kind](), is_door(place), lambda fault: faults.failing_at(place, fault))


def test_an_error_at_any_call_of_ours_costs_no_picture(bench: Bench, long_run: bool) -> None:
    """With --long every function's first and last call; otherwise some of the first ones."""
    every = 1 if long_run else {"a1111": 6, "forge": 24, "ersatz": 36}[bench.host.name]
    if not long_run and not bench.usual:
        every = max(1, every // 12)
    places = chosen(places_of(bench) if long_run else places_of_its_own(bench), long_run, every)
    count, struck = tried(bench, (at(place, "exception") for place in places), 4 if long_run else 40)
    assert struck > 0.95 * count


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exception"])
def test_every_kind_of_error_at_any_call_of_ours(bench: Bench, kind: str, long_run: bool) -> None:
    if not long_run and not bench.usual:
        pytest.skip("with --long only")
    places = chosen(places_of_its_own(bench), long_run, 1 if long_run else 120)
    count, struck = tried(bench, (at(place, kind) for place in places), 8)
    assert struck > 0.95 * count


def pieces(bench: Bench, every: int) -> list[tuple[str, nn.Module]]:
    """Parts of both networks that compute."""
    found = []
    for side, network in zip(("large", "small"), bench.networks(), strict=True):
        found += [(f"{side} {name}", part) for name, part in faults.parts(network).items()]
    return found[every // 2 :: every]


def test_an_error_in_any_part_of_either_network(bench: Bench, long_run: bool) -> None:
    """Of the large stage it is the host's own, which passes; in every other stage the large model finishes."""
    attempts = [
        (
            f"call {call} of {name}",
            KINDS[kind](),
            False,
            lambda fault, p=part, c=call: faults.module_failing(p, c, fault),
        )
        for name, part in pieces(bench, 1 if long_run else 60)
        for call in range(1, STEPS)
        for kind in (("exception", "out of memory") if long_run else ("out of memory",))
    ]
    count, struck = tried(bench, attempts, 8)
    assert struck > (0.3 if bench.usual else 0.1) * count, "a part is used in two stages or three, of the usual plan"


def test_what_is_no_number_ends_the_stitching(bench: Bench, long_run: bool) -> None:
    """NaN and infinity out of any part: of the large stage they are the host's own; elsewhere the picture is finite."""
    wrong = []
    for name, part in pieces(bench, 3 if long_run else 60):
        for call in range(1, STEPS):
            for value in (float("nan"), float("inf")) if long_run else (float("nan"),):
                found = _answered(bench, part, call, value)
                if found:
                    wrong.append(f"call {call} of {name} gives {value}: {found}")
    assert not wrong, "\n".join(wrong)


def _answered(bench: Bench, part: nn.Module, call: int, value: float) -> list[str]:
    struck: list[tuple[int, bool]] = []

    def noted(frames: list[FrameType]) -> None:
        struck.append((bench.done, faults.of_the_large_alone(frames)))

    outcome = bench.run(True, lambda: faults.module_answering(part, call, value, noted))
    if not struck:
        return []
    [(evaluation, hosts_own)] = struck
    if hosts_own:
        return bench.left_behind(outcome)
    found = []
    if not any(same(outcome.latents, one) for one in (bench.expected[evaluation], bench.on)):
        found.append(f"not the large model's picture from evaluation {evaluation} on")
    if not same(outcome.latents, bench.on) and "not finite" not in str(outcome.infotext.get(summary.STOPPED)):
        found.append("nobody was told")
    return found + bench.left_behind(outcome)


@pytest.mark.parametrize("way", ["interrupt", "skip", "stop"])
@pytest.mark.parametrize("after", range(1, STEPS + 1))
def test_interrupts_end_a_run_as_they_do_without_us(bench: Bench, way: str, after: int, long_run: bool) -> None:
    """Between evaluations the host's own way; the latent is that of the last evaluation, ours or the large model's."""
    if not long_run and (after != 2 or way == "stop" or not bench.usual):
        pytest.skip("with --long only")

    def count(_params: Any) -> None:
        if bench.done == after - 1:
            if way == "stop":
                bench.host.state.stopping_generation = True
            else:
                bench.host.state.interrupt() if way == "interrupt" else bench.host.state.skip()

    bench.host.callbacks.on_cfg_after_cfg(count)
    try:
        outcome = bench.run(True)
    finally:
        bench.host.callbacks.remove_callbacks_for_function(count)
        bench.host.state.stopping_generation = False
    assert outcome.raised is None
    assert summary.STOPPED not in outcome.infotext, "the user stopped it, nothing broke"
    if bench.host.name == "ersatz" and way != "stop":
        bench.load()  # it unloads its models then
        bench.run(True)
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_the_hosts_interrupt_inside_an_evaluation_passes(bench: Bench) -> None:
    """As when another extension notices the interrupt in the middle of a block."""
    interrupted = bench.host.module("modules.sd_samplers_common").InterruptedException
    part = dict(pieces(bench, 1))["large joint_blocks.1.x_block.attn.qkv"]
    struck = 0
    for call in range(1, STEPS):
        watched = Watched(bench, interrupted())
        outcome = watched.run(faults.module_failing(part, call, watched.fault))
        struck += watched.fault.done
        assert outcome.raised is None, "the host's sampler ends with the last latent"
        assert outcome.log == []
        assert bench.left_behind(outcome) == []
    assert struck > 1
    assert bench.afterwards() == []
