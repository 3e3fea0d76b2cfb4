"""Places where our code runs, found by watching it run, and ways to make one of them fail.

A place is a function of ours and which of its calls it is. They are recorded from a generation, so that new code is
among them without a list to be kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = str(ROOT / "lib_hybridstitch")
DEMO = str(ROOT / "hybridstitch_demo")
SCRIPT = str(ROOT / "scripts" / "hybridstitch.py")
NETWORK = str(ROOT / "lib_hybridstitch" / "mmdit" / "model.py")
"""The stand-ins' own networks are made of this file too."""


@dataclass(frozen=True, order=True)
class Place:
    """A call of a function.

    Args:
        file: relative to the repository.
        line: where the function begins.
        name: of the function.
        call: which of its calls in the generation, from 1.
    """

    file: str
    line: int
    name: str
    call: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.name} #{self.call}"


def ours(frame: FrameType) -> bool:
    """Whether a frame is of the extension, and not of the stand-in."""
    name = frame.f_code.co_filename
    return name == SCRIPT or (name.startswith(LIBRARY) and not name.startswith(DEMO))


class Names:
    """Functions of ours by their code: (file, line, name), or None for everybody else's."""

    def __init__(self) -> None:
        self._known: dict[CodeType, tuple[str, int, str] | None] = {}

    def of(self, frame: FrameType) -> tuple[str, int, str] | None:
        """The function that a frame runs, where it is ours."""
        code = frame.f_code
        if code not in self._known:
            file = str(Path(code.co_filename).relative_to(ROOT)) if ours(frame) else ""
            self._known[code] = (file, code.co_firstlineno, code.co_name) if file else None
        return self._known[code]


@contextmanager
def recording(places: list[Place]) -> Iterator[None]:
    """Note every call of ours in this thread."""
    counts: dict[tuple[str, int, str], int] = {}
    names = Names()

    def watch(frame: FrameType, event: str, _arg: Any) -> None:
        if event == "call" and (key := names.of(frame)) is not None:
            counts[key] = counts.get(key, 0) + 1
            places.append(Place(*key, counts[key]))

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


@dataclass
class Fault:
    """One failure, once.

    Args:
        error: what is raised.
        noted: called at that moment, with the frames above the place, the nearest first.
        done: whether it has been raised.
    """

    error: BaseException
    noted: Callable[[list[FrameType]], None] = lambda _frames: None
    done: bool = False

    def strike(self, frame: FrameType | None) -> None:
        """Raise it."""
        self.done = True
        frames = []
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        self.noted(frames)
        del frames
        raise self.error


@contextmanager
def failing_at(place: Place, fault: Fault) -> Iterator[None]:
    """Raise at the beginning of one call of ours in this thread, as if its first line did."""
    wanted, count, names = (place.file, place.line, place.name), 0, Names()

    def watch(frame: FrameType, event: str, _arg: Any) -> None:
        nonlocal count
        if event != "call" or fault.done or names.of(frame) != wanted:
            return
        count += 1
        if count == place.call:
            fault.strike(frame)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def module_failing(module: nn.Module, call: int, fault: Fault) -> Iterator[None]:
    """Raise in a part of a network instead of its `call`-th computation."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == call and not fault.done:
            fault.strike(sys._getframe(1))

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def module_answering(module: nn.Module, call: int, value: float, noted: Callable[[list[FrameType]], None]) -> Any:
    """Let a part of a network answer NaN or infinity once."""
    count = 0

    def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal count
        count += 1
        if count != call:
            return None
        frames, frame = [], sys._getframe(1)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back  # type: ignore[assignment]
        noted(frames)
        return torch.full_like(output, value)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def parts(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that compute and have no parts themselves, by name."""
    return {name: module for name, module in network.named_modules() if name and not list(module.children())}


def of_the_large_alone(frames: list[FrameType]) -> bool:
    """Whether a place lies in what the host's own large model computes by itself, and not in what we make of it."""
    for frame in frames:
        name, function = frame.f_code.co_filename, frame.f_code.co_name
        if function in ("_stitched", "_place", "end_batch") and name.endswith(("stitcher.py", "generation.py")):
            return False
        if name.endswith("stitcher.py") and function == "_large_alone":
            return True
        if name == SCRIPT or (name.endswith("extension.py") and "webui" in name):
            return False
    return True


class PlantedError(Exception):
    """An error that nobody expects."""


KINDS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: PlantedError("an error that was put there"),
    "out of memory": lambda: getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)("CUDA out of memory."),
    "old out of memory": lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "no memory": lambda: MemoryError("no memory is left"),
    "ctrl-c": KeyboardInterrupt,
}
"""Ways to fail; the host's own interrupt comes from the host."""
