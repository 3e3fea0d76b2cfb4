"""A stand-in under observation: what a generation went through, what it left behind, and what it should have drawn."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.engine.evaluation import Evaluation
from lib_hybridstitch.engine.history import History
from lib_hybridstitch.engine.stitcher import ImageState, RowState, Stitcher
from lib_hybridstitch.generation.generation import Generation, Pass
from lib_hybridstitch.hosts.forge import WRAPPER
from lib_hybridstitch.mmdit.kv_cache import KVCache
from tests.hosts.conftest import Web

STEPS = 12
PLANS: dict[str, dict[str, Any]] = {
    "two models": {"plan": "3L M30 X M30x S X s C X L"},
    "large alone": {"plan": "4L X M30x X L X C X L score=change", "small_checkpoint": ""},
    "RAS": {"plan": "4L 3M25x L 4M25x score=ras hold", "small_checkpoint": ""},
}
"""Together every kind of step: large, probe, masked over either background, small, CFG cached of both, extrapolated."""
REQUEST: dict[str, Any] = {"steps": STEPS, "width": 64, "height": 64, "seed": 3}
OURS = (Generation, Pass, Stitcher, RowState, ImageState, History, KVCache, Evaluation)
"""Kinds of objects that live no longer than a generation."""


class Log(logging.Handler):
    """What the extension's log says, as text alone: a record would keep the error's tensors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line."""
        self.lines.append(record.getMessage())


class Raised:
    """Keeps whatever a block raises, interrupts included, without the frames that it came through."""

    error: BaseException | None = None

    def __enter__(self) -> Raised:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error and error.with_traceback(None)
        return True


@dataclass
class Outcome:
    """What became of one generation.

    Args:
        p: its object.
        latents: the picture before it is decoded; None when the generation raised.
        raised: what came out of the host.
        log: what the extension's log said, of the level warning and above.
        swallowed: what the host reported and went on from.
        comments: below the picture.
    """

    p: Any
    latents: Tensor | None = None
    raised: BaseException | None = None
    log: list[str] = field(default_factory=list)
    swallowed: list[Exception] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @property
    def infotext(self) -> dict[str, Any]:
        """What is written beside the picture."""
        return dict(self.p.extra_generation_params)


class Bench:
    """A stand-in with the extension, and what it draws undisturbed.

    Args:
        web: the stand-in.
        plan: settings of the extension.
    """

    def __init__(self, web: Web, plan: dict[str, Any]) -> None:
        self.web, self.host, self.plan = web, web.host, plan
        self.latents: list[Tensor] = []
        self.done = 0
        self.host.module("modules.progress").current_task = "task(bench)"  # so that the run's figures are kept by it
        self.listen()
        self.off = self.drawn(self.run(False))
        self.on = self.drawn(self.run(True))
        self.points = self.latents[:]
        self.known: dict[int, Tensor] = {len(self.points): self.on}
        self.clean = self.trace()
        gc.collect()
        gc.freeze()  # counts are of what comes later, a small model that is loaded again among it
        self.web.extension.release()
        self.run(True)
        self.baseline = self.count()

    @staticmethod
    def drawn(outcome: Outcome) -> Tensor:
        """The picture of a run that must not have raised."""
        if outcome.raised is not None:
            raise outcome.raised
        assert outcome.latents is not None
        return outcome.latents

    def listen(self) -> None:
        """Note every evaluation, through the host's own callbacks."""

        def begun(params: Any) -> None:
            self.latents.append(params.x[: params.x.shape[0] if self.host.name != "a1111" else 1].clone())

        def ended(_params: Any) -> None:
            self.done += 1

        self.host.callbacks.on_cfg_denoiser(begun)
        self.host.callbacks.on_cfg_after_cfg(ended)

    def run(self, on: bool, during: Callable[[Any], Any] | None = None, **request: Any) -> Outcome:
        """Generate once; `during` makes a context of p in which the host runs. Nothing is known of times before."""
        self.web.extension.timings.clear()
        p = self.host.processing(**{**REQUEST, **request})
        p.is_api, p.scripts = True, self.host.runner("txt2img")
        wanted = {"enabled": on, "small_checkpoint": self.web.small, **self.plan}
        values = self.host.script_args("txt2img", {"HybridStitch": [wanted]})
        self.latents.clear()
        self.done = 0
        outcome, log = Outcome(p), Log()
        logger = logging.getLogger("hybridstitch")
        logger.addHandler(log)
        logger.propagate = False  # what others keep of it would hold the error's tensors
        with Raised() as raised, during(p) if during else nullcontext():
            outcome.latents = self.host.run(p, values).latents
        logger.removeHandler(log)
        logger.propagate = True
        outcome.raised = raised.error
        outcome.log = log.lines
        outcome.swallowed = [error.with_traceback(None) for error in self.host.journal.swallowed]
        outcome.comments = list(p.comments)
        self._forget()
        return outcome

    @contextmanager
    def under(self, plan: dict[str, Any]) -> Iterator[None]:
        """Generate under another plan for a while."""
        kept, self.plan = self.plan, plan
        try:
            yield
        finally:
            self.plan = kept

    def load(self) -> None:
        """Have the small model loaded, whether or not the plan needs it."""
        if len(self.networks()) == 1:
            with self.under({"plan": "1S"}):
                self.drawn(self.run(True))
            assert len(self.networks()) == 2

    def _forget(self) -> None:
        journal = self.host.journal
        for part in (journal.hooks, journal.calls, journal.swallowed, journal.latents):
            part.clear()
        if self.host.name != "a1111":
            device = self.host.module("backend.memory_management").standin
            device.loads.clear()
            device.evicted.clear()

    def expected(self, index: int) -> Tensor:
        """The picture of a stitched run which the large model finishes alone from evaluation `index` on."""
        if index not in self.known:
            self.known[index] = self._continued(self.points[index], index)
        return self.known[index]

    def _continued(self, point: Tensor, index: int) -> Tensor:
        """The large model alone, from a latent of a stitched run on: the host's own sampler, begun in the middle."""
        samplers = self.host.module("modules.sd_samplers")
        create = samplers.create_sampler

        def begun_later(*args: Any, **kwargs: Any) -> Any:
            sampler = create(*args, **kwargs)
            whole = sampler.func

            def rest(model: Any, x: Tensor, sigmas: Tensor, *more: Any, **options: Any) -> Tensor:
                return whole(model, point, sigmas[index:], *more, **options)

            sampler.func = rest
            return sampler

        samplers.create_sampler = begun_later
        try:
            return self.drawn(self.run(False))
        finally:
            samplers.create_sampler = create

    # --- what is left behind -----------------------------------------------------------------------------------------

    def trace(self) -> dict[str, Any]:
        """Everything that a patch could hide in, of the host's model, its patcher and its modules."""
        network = self.host.network
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        found: dict[str, Any] = {
            "attributes": sorted(vars(network)),
            "forward": getattr(network.forward, "__func__", network.forward),
            "hooks": sum(len(getattr(module, name)) for module in network.modules() for name in hooks),
            "class": type(network).forward,
            "unload": self.host.sd_models.unload_model_weights,
            "status": self.host.state.textinfo,
            "training": any(module.training for module in network.modules()),
        }
        if self.host.name != "a1111":
            unet = self.host.sd_model.forge_objects.unet
            found["wrapper"] = unet.model_options.get(WRAPPER)
            found["extra models"] = list(unet.extra_model_patchers_during_sampling)
            found["reserved"] = unet.extra_preserved_memory_during_sampling
        return found

    def count(self) -> dict[str, int]:
        """Objects of a run that are alive, and tensors of no model that is kept; all since the bench was made."""
        self.latents.clear()
        gc.collect()
        alive = gc.get_objects()
        types = Counter(map(type, alive))
        kinds = {kind.__name__: types[kind] for kind in OURS}
        wanted = {kind for kind in types if issubclass(kind, Tensor)}
        kept = {id(tensor) for network in self.networks() for tensor in network.state_dict(keep_vars=True).values()}
        kept |= {id(tensor) for tensor in self.known.values()}
        tensors = [one for one in alive if type(one) in wanted and id(one) not in kept]
        return {**kinds, "tensors": sum(not one.is_meta for one in tensors)}  # a released network's hold no memory

    def left_behind(self, outcome: Outcome) -> list[str]:
        """What a generation left behind, in the host and in memory."""
        found = ["p.sample is still wrapped"] * ("sample" in vars(outcome.p))
        outcome.p = outcome.latents = None
        now = self.trace()
        found += [f"{key} was {self.clean[key]} and is {now[key]}" for key in now if now[key] != self.clean[key]]
        count = self.count()
        found += [f"{count[kind.__name__]} {kind.__name__} alive" for kind in OURS[1:] if count[kind.__name__]]
        return found

    def afterwards(self) -> list[str]:
        """What is wrong with the next generations, without HybridStitch and with it."""
        found = []
        if not same(self.run(False).latents, self.off):
            found.append("the next run without HybridStitch differs")
        if not same(self.run(True).latents, self.on):
            found.append("the next run differs")
        if (count := self.count()) != self.baseline:
            found.append(f"memory was {self.baseline} and is {count}")
        return found

    def networks(self) -> list[Any]:
        """The transformers that are kept between runs: the large one, and the small one."""
        return [self.host.network, *filter(None, [self.web.small_network()])]


def same(one: Tensor | None, other: Tensor) -> bool:
    """Bit for bit, NaN included."""
    return (
        one is not None and one.shape == other.shape and bool(torch.equal(one.nan_to_num(1e6), other.nan_to_num(1e6)))
    )
