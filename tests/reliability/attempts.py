"""One generation with a fault in it: was the fault taken as promised, and was nothing left behind?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

from lib_hybridstitch.generation import summary
from tests.reliability import faults
from tests.reliability.bench import Bench, Outcome, same
from tests.reliability.faults import KINDS, Fault, Place, Source

SOME_PARTS = ("x_embedder.proj", "joint_blocks.1.x_block.attn.qkv", "joint_blocks.0.context_block.mlp.fc1", "linear")
"""At the beginning, in the middle and at the end of a pass."""
SILENT = {"infotext": ("infotext", "figures"), "json.dumps": ("figures",)}
"""Where telling itself fails, by what cannot tell then."""
Attempt = tuple[Place, Source, BaseException, bool]
"""Where, among what, what is raised, and whether it lasts."""


class Tried:
    """A stitched generation with a fault in it, and what became of it.

    Args:
        bench: where.
        attempt: the fault.
        beside: another extension around the generation.
        cold: whether the small model must be loaded in it.
    """

    def __init__(
        self,
        bench: Bench,
        attempt: Attempt,
        beside: Callable[[], AbstractContextManager[Any]] = nullcontext,
        cold: bool = False,
    ) -> None:
        self.bench, (self.place, source, self.error, lasting) = bench, attempt
        self.evaluations, self.passes_through, self.dispensable = -1, False, False
        fault = Fault(self.error, lasting, self._noted)
        if cold:
            bench.web.extension.release()
        during = faults.failing(source, self.place, fault)
        with beside():
            self.outcome = bench.run(True, during)
        self.error.__traceback__ = self.error.__context__ = None  # they hold every frame's tensors
        self.struck = fault.struck > 0

    def _noted(self, frames: list[FrameType]) -> None:
        self.evaluations, self.passes_through = self.bench.done, faults.passes_through(frames)
        self.dispensable = any(frame.f_code.co_name == "_hash_of" for frame in frames)

    def wrong(self, left_behind: Callable[[Outcome], list[str]] | None = None) -> list[str]:
        """What is wrong with how the fault was taken, and with what it left behind, as the bench or another sees it."""
        left_behind = left_behind or self.bench.left_behind
        if not self.struck:
            return ["it did not strike"]
        outcome, interrupt = self.outcome, not isinstance(self.error, Exception)
        found = [f"the host met {error!r} in a hook" for error in outcome.swallowed]
        picture, raised = outcome.latents, outcome.raised
        if raised is not None and raised is not self.error:
            found.append(f"raised {raised!r}")
        if raised is not None and not (interrupt or self.passes_through):
            found.append("the host got an error of ours")
        if interrupt and raised is None:  # the host's sampler knows its own, and ends with the latent that it has
            if self.bench.done != self.evaluations or isinstance(self.error, KeyboardInterrupt):
                found.append("the run went on")
            if summary.STOPPED in outcome.infotext or outcome.log:
                found.append("the user stopped it, but is told that something broke")
        if interrupt or raised is not None:
            return found + left_behind(outcome)
        found += self._untold()
        found += left_behind(outcome)  # before another generation cleans up
        wanted = self.bench.on if self.dispensable else self.bench.expected(self.evaluations)
        if not same(picture, wanted):
            found.append(f"not the large model's picture from evaluation {self.evaluations} on")
        return found

    def _untold(self) -> list[str]:
        """Where the reason does not stand though it should, or stands more than once.

        Of what a run can do without, such as a checkpoint's hash, the log alone tells, and it is stitched to its end.
        """
        words, outcome = str(self.error), self.outcome
        figures = self.bench.web.extension.last_run or {}
        told = {
            "log": len([line for line in outcome.log if words in line or (self.dispensable and "cannot" in line)]),
            "infotext": int(words in str(outcome.infotext.get(summary.STOPPED))),
            "comments": len([line for line in outcome.comments if words in line]),
            "figures": int(words in str(figures.get("stopped"))),
        }
        wanted = dict.fromkeys(told, 1)
        if self.dispensable:
            wanted = {**dict.fromkeys(told, 0), "log": 1}
        else:
            wanted.update(dict.fromkeys(SILENT.get(self.place.site, ()), 0))
        return [f"{name} tells {told[name]} times" for name in told if told[name] != wanted[name]]


def all_tried(bench: Bench, attempts: Iterable[Attempt], cold: bool = False) -> None:
    """Put faults into generations one at a time, and look at the next ones, with and without HybridStitch, at last.

    Fails with all that went wrong.
    """
    wrong: dict[str, list[str]] = {}
    for attempt in attempts:
        if found := Tried(bench, attempt, cold=cold).wrong():
            wrong[f"{attempt[2]!r} {'from' if attempt[3] else 'at'} {attempt[0]}"] = found + bench.afterwards()
    if found := bench.afterwards():
        wrong["afterwards"] = found
    assert not wrong, "\n".join(f"{name}: {'; '.join(lines)}" for name, lines in wrong.items())


def at(places: Sequence[Place], source: Source, *kinds: str, lasting: bool = False) -> list[Attempt]:
    """Faults of these kinds, by turns, at some places."""
    return [(place, source, KINDS[kinds[index % len(kinds)]](), lasting) for index, place in enumerate(places)]


def interrupts(bench: Bench, places: Sequence[Place], source: Source) -> list[Attempt]:
    """The host's own interrupt, as when another extension notices it in the middle of a block.

    Not in an adapter's own lines: the host says of a real one that the user pressed the button, and before the engine
    is reached only that tells it from an extension that has taken our place.
    """
    kind = bench.host.module("modules.sd_samplers_common").InterruptedException
    return [(place, source, kind(), False) for place in places if " hosts/" not in place.site]
