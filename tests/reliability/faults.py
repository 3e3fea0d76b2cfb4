"""Where real faults come from, and ways to let them strike there.

Nothing of ours is made to fail by itself. What fails is what our code calls: the networks, torch, the files, the host's
functions, the log and the record beside the picture. Every call is found by watching a run, so that new ones are among
them without a list to be kept.
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import psutil
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lib_hybridstitch.hosts import forge_loader
from tests.reliability.bench import Bench

ROOT = Path(__file__).resolve().parents[2]
LIBRARY, SCRIPT = f"{ROOT}/lib_hybridstitch/", f"{ROOT}/scripts/"
ENGINE = ("engine/", "hosts/", "mmdit/partial.py", "mmdit/kv_cache.py", "mmdit/tokens.py")
"""Files of ours that ask torch for memory in a run; the networks themselves are watched part by part."""
NOT_ASKED = {"__get__", "size", "dim", "numel", "element_size", "stride"}
"""What is asked of a tensor without asking for memory."""

Seen = Callable[[str, FrameType], None]
"""Told the name of what is about to be called, and the frame that calls it."""


def ours(frame: FrameType) -> bool:
    """Whether a frame is of the extension, and not of the stand-in."""
    return frame.f_code.co_filename.startswith((LIBRARY, SCRIPT))


class Source(Protocol):
    """A part of the world that can fail while our code uses it."""

    def watch(self, p: Any, seen: Seen) -> AbstractContextManager[Any]:
        """Have every use of it told before it happens, in a generation with the processing object `p`."""
        ...


class Functions:
    """Functions that our code calls.

    Args:
        calls: (owner, attribute) each.
    """

    def __init__(self, *calls: tuple[Any, str]) -> None:
        self.calls = calls

    @contextmanager
    def watch(self, p: Any, seen: Seen) -> Iterator[None]:
        """By the name of the owner and the function's own."""
        with pytest.MonkeyPatch.context() as patches:
            for owner, name in self.calls:
                site = f"{owner.__name__.split('.')[-1]}.{name}"
                patches.setattr(owner, name, self._between(owner, name, site, seen))
            yield

    @staticmethod
    def _between(owner: Any, name: str, site: str, seen: Seen) -> Any:
        bound = isinstance(inspect.getattr_static(owner, name), (classmethod, staticmethod))
        inner = getattr(owner, name)

        def between(*args: Any, **kwargs: Any) -> Any:
            if ours(sys._getframe(1)):
                seen(site, sys._getframe(1))
            return inner(*args, **kwargs)

        return staticmethod(between) if bound else between


class Torch(TorchFunctionMode):
    """What our engine asks of torch, line by line: each may find no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Seen = lambda *_: None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame = sys._getframe(1)
        place = frame.f_code.co_filename.removeprefix(LIBRARY)
        if place.startswith(ENGINE) and function.__name__ not in NOT_ASKED:
            self.seen(f"torch at {place}:{frame.f_lineno} {function.__name__}", frame)
        return function(*args, **(kwargs or {}))

    @contextmanager
    def watch(self, p: Any, seen: Seen) -> Iterator[None]:
        """By file, line and function."""
        self.seen = seen
        with self:
            yield


class Networks:
    """The parts of both networks that compute.

    Args:
        bench: whose.
        names: of the parts, as they end; all that have no parts themselves by default.
    """

    def __init__(self, bench: Bench, *names: str) -> None:
        self.parts = {
            f"{side} {name}": part
            for side, network in zip(("large", "small"), bench.networks())
            for name, part in network.named_modules()
            if name and not list(part.children()) and (not names or name.endswith(names))
        }

    @contextmanager
    def watch(self, p: Any, seen: Seen) -> Iterator[None]:
        """By "large" or "small", and the part's name."""
        with ExitStack() as handles:
            for site, part in self.parts.items():
                handle = part.register_forward_pre_hook(lambda *_, site=site: seen(site, sys._getframe(1)))
                handles.callback(handle.remove)
            yield


class Infotext:
    """The record beside the picture."""

    @contextmanager
    def watch(self, p: Any, seen: Seen) -> Iterator[None]:
        """Whatever is written into it."""

        class Watched(dict[str, Any]):
            def __setitem__(self, key: str, value: Any) -> None:
                if ours(sys._getframe(1)):
                    seen("infotext", sys._getframe(1))
                super().__setitem__(key, value)

        p.extra_generation_params = Watched(p.extra_generation_params)
        yield


class Log(logging.Handler):
    """A handler of the log, as the host or another extension may have added one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Seen = lambda *_: None

    def emit(self, record: logging.LogRecord) -> None:
        """Called for every line."""
        self.seen("log", sys._getframe(1))

    @contextmanager
    def watch(self, p: Any, seen: Seen) -> Iterator[None]:
        """Every line."""
        self.seen = seen
        logging.getLogger("hybridstitch").addHandler(self)
        try:
            yield
        finally:
            logging.getLogger("hybridstitch").removeHandler(self)


def api(bench: Bench) -> Functions:
    """What our code calls of the host, of libraries and of the system in a run."""
    get = bench.host.module
    calls = [
        (get("modules.sd_models"), "get_closet_checkpoint_match"),
        (get("modules.hashes"), "sha256"),
        (get("modules.sd_samplers_kdiffusion").KDiffusionSampler, "get_sigmas"),
        (type(get("modules.shared").state), "__setattr__"),  # the words beside the progress bar
        (json, "dumps"),  # the last run's figures
        (Path, "stat"),
        (Path, "is_file"),
    ]
    if bench.host.name == "a1111":
        return Functions(*calls, (psutil, "virtual_memory"))
    manager, unet = get("backend.memory_management"), get("backend.patcher.unet").UnetPatcher
    return Functions(
        *calls,
        *((manager, name) for name in ("get_torch_device", "get_free_memory", "get_total_memory", "soft_empty_cache")),
        *((get("backend.loader"), name) for name in ("preprocess_state_dict", "load_huggingface_component")),
        (get("huggingface_guess"), "guess"),
        (get("backend.state_dict"), "try_filter_state_dict"),
        *((unet, name) for name in ("from_model", "clone", "set_model_unet_function_wrapper")),
        *((unet, f"add_extra_{name}_during_sampling") for name in ("model_patcher", "preserved_memory")),
        (forge_loader, "safe_open"),
    )


@dataclass
class Fault:
    """A failure.

    Args:
        error: what is raised.
        lasting: whether it is raised again whenever the same is called later.
        noted: called when it strikes first, with the frames above the place, the nearest first.
        struck: how often it was raised.
    """

    error: BaseException
    lasting: bool = False
    noted: Callable[[list[FrameType]], None] = lambda _frames: None
    struck: int = 0

    def strike(self, frame: FrameType | None) -> None:
        """Raise it."""
        self.struck += 1
        if self.struck == 1:
            self.noted(frames_from(frame))
        raise self.error


def frames_from(frame: FrameType | None) -> list[FrameType]:
    """A frame and those above it, the nearest first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


@dataclass(frozen=True, order=True)
class Place:
    """One use of what can fail.

    Args:
        site: what is used.
        call: which use of it in the generation, from 1.
    """

    site: str
    call: int

    def __str__(self) -> str:
        return f"{self.site} #{self.call}"


def places(bench: Bench, source: Source) -> list[Place]:
    """Every use of a source in one stitched generation."""
    counts: Counter[str] = Counter()
    found: list[Place] = []

    def seen(site: str, _frame: FrameType) -> None:
        counts[site] += 1
        found.append(Place(site, counts[site]))

    bench.run(True, lambda p: source.watch(p, seen))
    assert found, "it is used"
    return found


def failing(source: Source, place: Place, fault: Fault) -> Callable[[Any], AbstractContextManager[Any]]:
    """What makes, of p, a context in which a fault strikes at a place."""
    count = 0

    def seen(site: str, frame: FrameType) -> None:
        nonlocal count
        if site != place.site:
            return
        count += 1
        if count == place.call or (fault.lasting and count > place.call):
            fault.strike(frame)

    return lambda p: source.watch(p, seen)


def spread(found: Sequence[Place], every: int) -> list[Place]:
    """Some of them, over all sites and the whole run: of one site in `every` the first use or, by turns, the last."""
    sites: dict[str, list[Place]] = {}
    for place in found:
        sites.setdefault(place.site, []).append(place)
    chosen = [places[0 if index % (2 * every) == 0 else -1] for index, places in enumerate(sites.values())]
    return chosen[::every]


def passes_through(frames: Sequence[FrameType]) -> bool:
    """Whether what is raised there is the host's to hear: it comes from the large model's own pass, or from outside.

    Everything else lies inside one of the guards: around the engine's work on an evaluation, and around each hook.
    """
    below = ""
    for frame in frames:
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if file.endswith("lib_hybridstitch/engine/stitcher.py"):
            if name == "velocity":
                return below == ""  # its direct call of the full pass
            below = name
        elif file.endswith(("generation/generation.py", "webui/extension.py")) and name != "sample":
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


@contextmanager
def answering(part: nn.Module, call: int, value: float, noted: Callable[[list[FrameType]], None]) -> Iterator[None]:
    """Let a part of a network answer NaN or infinity once, in its `call`-th computation."""
    count = 0

    def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal count
        count += 1
        if count != call:
            return None
        noted(frames_from(sys._getframe(1)))
        return torch.full_like(output, value)

    handle = part.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
