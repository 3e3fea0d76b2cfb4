"""Other extensions that patch before or after us: both do their work, and ours leaves no trace, whatever fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lib_hybridstitch.generation import summary
from lib_hybridstitch.hosts.forge import WRAPPER
from tests.reliability import faults
from tests.reliability.attempts import SOME_PARTS, Tried, at
from tests.reliability.bench import STEPS, Bench, Outcome, same
from tests.reliability.faults import PlantedError

HOOKS = {"network": "process_before_every_sampling", "sampling": "process_batch"}
"""Where extensions patch the host's network, and where its sampling."""


class Neighbour:
    """Another extension, which counts calls of the host's network or of `p.sample` through a patch of its own.

    Args:
        bench: where.
        target: "network" or "sampling".
        order: "before" or "after" us.
    """

    def __init__(self, bench: Bench, target: str, order: str) -> None:
        self.bench, self.target, self.order = bench, target, order
        self.calls = 0
        self.fails_at = 0
        self.error = PlantedError("a neighbour's own error")
        self.undo: Callable[[], None] = lambda: None

    def call(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count, and hand on; fail where that is wanted."""
        self.calls += 1
        if self.calls == self.fails_at:
            raise self.error
        return inner(*args, **kwargs)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A generation in which it patches; it takes its patch off when the generation is over, as in `postprocess`."""
        extension, name = self.bench.web.extension, HOOKS[self.target]
        own = getattr(extension, name)

        def hook(p: Any, *args: Any, **kwargs: Any) -> None:
            if self.order == "before":
                self.patch(p)
            own(p, *args, **kwargs)
            if self.order == "after":
                self.patch(p)

        setattr(extension, name, hook)
        try:
            yield
        finally:
            delattr(extension, name)
            undo, self.undo = self.undo, lambda: None
            undo()

    def left_behind(self, outcome: Outcome) -> list[str]:
        """What we left behind. It may have put back what it had found, ours without effect by then: on `p` for good,
        on the host's model until the next run."""
        if self.target == "sampling":
            vars(outcome.p).pop("sample", None)
        self.bench.run(True)
        return self.bench.left_behind(outcome)

    def patch(self, p: Any) -> None:
        """Put the patch on, as extensions for that program do."""
        if self.target == "sampling":
            self.undo = self._around(p, "sample")
        elif self.bench.host.name == "a1111":
            self.undo = self._around(self.bench.host.network, "forward")
        else:
            self.undo = self._wrapped(p.sd_model.forge_objects)

    def _around(self, owner: Any, name: str) -> Callable[[], None]:
        inner, was_own = getattr(owner, name), name in vars(owner)
        setattr(owner, name, lambda *args, **kwargs: self.call(inner, *args, **kwargs))
        return lambda: setattr(owner, name, inner) if was_own else delattr(owner, name)

    def _wrapped(self, objects: Any) -> Callable[[], None]:
        before, unet = objects.unet, objects.unet.clone()
        inner = unet.model_options.get(WRAPPER)

        def whole(apply_model: Callable[..., Any], arguments: Any) -> Any:
            if inner is not None:
                return inner(apply_model, arguments)
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        unet.set_model_unet_function_wrapper(lambda *args: self.call(whole, *args))
        objects.unet = unet
        return lambda: setattr(objects, "unet", before)


@pytest.fixture(params=["network before", "network after", "sampling before", "sampling after"])
def neighbour(request: pytest.FixtureRequest, bench: Bench) -> Neighbour:
    """Every kind of neighbour in every stand-in."""
    return Neighbour(bench, *request.param.split())


def test_both_do_their_work(bench: Bench, neighbour: Neighbour) -> None:
    """The picture is what it is without the neighbour, whose patch is called wherever it can be."""
    outcome = bench.run(True, lambda _p: neighbour.beside())
    assert outcome.raised is None and same(outcome.latents, bench.on)
    assert summary.STOPPED not in outcome.infotext
    # Around the network: all evaluations where it lies outside of us, otherwise those that the host's own model makes.
    wanted = {"sampling before": 1, "sampling after": 1, "network after": STEPS}
    found = wanted.get(f"{neighbour.target} {neighbour.order}")
    assert neighbour.calls == found if found else 1 <= neighbour.calls < STEPS
    warned = any("another accelerator" in comment for comment in outcome.comments)
    assert warned == (neighbour.target == "network" and neighbour.order == "before")
    assert neighbour.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_a_neighbours_patch_that_came_first_is_there_when_we_have_gone(bench: Bench) -> None:
    """Not only for this generation: what was there before us is what the next one finds."""
    neighbour = Neighbour(bench, "network", "before")
    seen: list[Any] = []

    def look() -> Any:
        if bench.host.name == "a1111":
            return vars(bench.host.network).get("forward")
        return bench.host.sd_model.forge_objects.unet.model_options.get(WRAPPER)

    @contextmanager
    def looking() -> Iterator[None]:
        with neighbour.beside():
            patch = neighbour.patch
            neighbour.patch = lambda p: (patch(p), seen.append(look()))  # type: ignore[method-assign,assignment]
            yield
            seen.append(look())

    assert bench.run(True, lambda _p: looking()).raised is None
    assert len(seen) == 2 and seen[0] is seen[1] is not None
    assert bench.afterwards() == []


def test_a_neighbours_own_error_passes_in_the_large_models_steps(
    bench: Bench, neighbour: Neighbour, long_run: bool
) -> None:
    """It is the host's; where it lies inside a step of ours the large model finishes and the user is told."""
    bench.run(True, lambda _p: neighbour.beside())
    calls = range(1, neighbour.calls + 1)
    for call in calls if long_run else calls[::3]:
        neighbour.calls, neighbour.fails_at = 0, call
        neighbour.error = PlantedError(f"a neighbour's own error at call {call}")
        outcome = bench.run(True, lambda _p: neighbour.beside())
        neighbour.error.__traceback__ = neighbour.error.__context__ = None
        outside = neighbour.target == "sampling" or neighbour.order == "after" or call == 1
        assert (outcome.raised is neighbour.error) or not outside, "the host's own errors pass"
        assert outcome.raised is neighbour.error or str(neighbour.error) in outcome.infotext[summary.STOPPED]
        assert neighbour.left_behind(outcome) == []
    assert bench.afterwards() == []


def test_an_error_of_ours_beside_a_neighbour_costs_no_picture(
    bench: Bench, neighbour: Neighbour, long_run: bool
) -> None:
    """In a network, in the engine, and in what is called of the host; one of them in the fast part."""
    wrong = []
    sources = [faults.Networks(bench, *SOME_PARTS), faults.Torch(), faults.api(bench)]
    number = 2 * (neighbour.target == "sampling") + (neighbour.order == "after")
    for source in sources if long_run else sources[number % 3 :][:1]:
        found = faults.spread(faults.places(bench, source), 1)
        found = [place for place in found if place.site != "State.__setattr__"]
        for attempt in at(found if long_run else found[:: max(len(found) // 2, 1)], source, "exception"):
            tried = Tried(bench, attempt, neighbour.beside)
            if lines := tried.wrong(neighbour.left_behind):
                wrong.append(f"{attempt[0]}: {'; '.join(lines)}")
    assert not wrong, "\n".join(wrong)
    assert bench.afterwards() == []


def test_the_neighbour_can_fail(bench: Bench) -> None:
    """What these tests watch for would be seen: a neighbour that changes the picture, and one that stays."""
    neighbour = Neighbour(bench, "network", "before")
    inner = neighbour.call
    neighbour.call = lambda *args, **kwargs: 1.01 * inner(*args, **kwargs)  # type: ignore[method-assign]
    assert not same(bench.run(True, lambda _p: neighbour.beside()).latents, bench.on)
    neighbour.undo = neighbour._around(bench.host.network, "forward")
    outcome = bench.run(False)
    found = bench.left_behind(outcome)
    neighbour.undo()
    assert any(line.startswith("forward") for line in found)
    assert bench.afterwards() == []
