"""One generation of the host: from its settings, through every pass of every batch, to what really happened.

The scope of everything that is placed on the host's model is `p.sample`: its end is reached after hires passes,
interrupts and exceptions alike, and before other extensions work on the finished picture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import HybridStitchError, StitchError, in_words, one_line
from lib_hybridstitch.generation import summary
from lib_hybridstitch.generation.small_model import small_model
from lib_hybridstitch.hosts.base import CheckpointFile, Host, LargeModel, Sampling, SmallModel
from lib_hybridstitch.hosts.patch import patch_instance
from lib_hybridstitch.hosts.slot import ModelSlot
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.plans.plan import Plan
from lib_hybridstitch.plans.profile import Profile, ProfileError, profile_of
from lib_hybridstitch.prediction.memory import Budget, cache_bytes
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.prediction.resolver import Resolved, resolve
from lib_hybridstitch.prediction.timings import Timings
from lib_hybridstitch.settings import StitchSettings


@dataclass
class Pass:
    """One pass of one batch, while it is sampled.

    Args:
        sampling: what the host said about it.
        resolved: its plan and prediction.
        setup: what its times depend on.
        stitcher: the engine, with its report.
        hosts_own: whether the host draws with the large model by itself too.
    """

    sampling: Sampling
    resolved: Resolved
    setup: Setup
    stitcher: Stitcher
    hosts_own: bool


@dataclass
class Generation:
    """What HybridStitch does in one generation (`p`) of the host.

    Args:
        host: the WebUI.
        p: its processing object, held weakly.
        settings: of this generation; None when they were refused, and then `stopped` says why.
        slot: where the small model is kept.
        timings: what steps took in earlier runs.
        on_end: called when a batch is over.
        comments: whether sentences go below the picture.
        record_timings: whether milliseconds go into infotext.
        stopped: why stitching ended or never began, or "".
        small_hash: of the small checkpoint, or "" where the host has not computed it.
        messages: what the user was told in the last batch.
        passes: of the last batch, finished.
    """

    host: Host
    p: weakref.ReferenceType[Any]
    settings: StitchSettings | None
    slot: ModelSlot[SmallModel]
    timings: Timings
    on_end: Callable[[Generation], None]
    comments: bool = True
    record_timings: bool = False
    stopped: str = ""
    small_hash: str = ""
    messages: list[str] = field(default_factory=list)
    passes: list[summary.Done] = field(default_factory=list)
    _resolved: dict[tuple[Any, ...], Resolved] = field(default_factory=dict)
    _open: Pass | None = None
    _undo: ExitStack = field(default_factory=ExitStack)
    _unwrap: Callable[[], None] | None = None
    _sampling: bool = False
    _logged: set[str] = field(default_factory=set)

    # --- the hooks, in the order in which they come ------------------------------------------------------------------

    def begin_batch(self, p: Any) -> None:
        """Prepare for one batch: everything ends with its `p.sample`."""
        self.end_batch(p)
        self.passes.clear()
        self.messages.clear()
        if self.settings is None:
            return
        self.stopped = ""

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def sample(*args: Any, **kwargs: Any) -> Any:
                self._sampling = True
                try:
                    return original(*args, **kwargs)
                finally:
                    self._sampling = False
                    self.end_batch(p)

            return sample

        self._unwrap = patch_instance(p, "sample", make)

    def open_pass(self, p: Any, x: Tensor, conditioning: Any) -> None:
        """Place the engine on the model for the pass that begins; whatever goes wrong leaves the large model alone."""
        with self.guarded(p):
            self._close_pass()
            if self.settings is None or not self._wanted(self.settings, bool(getattr(p, "is_hr_pass", False))):
                return
            if self._sampling:
                self._place(p, self.settings, x, conditioning)
            elif not self.stopped:
                self.stop(
                    p, "another extension replaced p.sample, so HybridStitch cannot clean up after itself and stays off"
                )
                self.report(p)

    def end_batch(self, p: Any) -> None:
        """Sampling is over, however it ended: take everything off the host and write down what happened.

        Nothing that goes wrong in here reaches the host, whose picture is finished.
        """
        unwrap, self._unwrap = self._unwrap, None
        opened = self._open
        with self.guarded(p, finished=True):
            self._close_pass()
        if unwrap is None:
            return
        with self.guarded(p, finished=True):
            unwrap()
        with self.guarded(p, finished=True):
            self._look_back(p, opened)
        self.report(p)

    def break_off(self, p: Any, error: Exception, finished: bool = False) -> None:
        """Something of ours broke outside the engine: the large model goes on alone, and the user is told.

        Args:
            finished: whether the picture is finished already.
        """
        reason = in_words(error)
        if self._open is not None:
            self._open.stitcher.give_up(reason)
        self.stop(p, reason, None if isinstance(error, HybridStitchError) else error, finished)

    def interrupt(self, reason: str) -> bool:
        """Let the large model finish what is being sampled; may come from another thread. Whether there is anything."""
        if (opened := self._open) is not None:
            opened.stitcher.ask_to_stop(reason)
        return self._sampling

    @contextmanager
    def guarded(self, p: Any, finished: bool = False) -> Iterator[None]:
        """Around work of ours: the picture comes first, whatever goes wrong in it; see `break_off`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            with suppress(Exception):  # where not even telling succeeds, the picture still does
                self.break_off(p, error, finished)

    def _look_back(self, p: Any, opened: Pass | None) -> None:
        if opened is not None and not opened.stitcher.called and not self.host.was_stopped():
            self.stop(p, "the model was never called through HybridStitch, because another extension took its place")
        for done in self.passes:
            if done.report.failure:
                self.stop(p, done.report.failure)

    def report(self, p: Any) -> None:
        """Write down what happened, where the last run's figures and infotext have it; one does without the other."""
        with self.guarded(p, finished=True):
            self.on_end(self)
        with self.guarded(p, finished=True):
            summary.write(p.extra_generation_params, self)

    def stop(self, p: Any, reason: str, trace: Exception | None = None, finished: bool = False) -> None:
        """Note why stitching ended or never began; the large model goes on without us.

        Args:
            trace: an error that the log shows with the lines it came from.
            finished: whether the picture was finished before; the first reason stands then.
        """
        reason = one_line(reason)  # what other programs raise may have many
        sentence = f"HybridStitch stopped, the large model made the picture: {reason}"
        if finished:
            reason = f"after the picture was finished: {reason}"
            sentence = f"HybridStitch failed {reason}"
        if reason == self.stopped:
            return
        self.stopped = (finished and self.stopped) or reason
        try:
            self.tell(p, sentence)
        finally:
            if reason not in self._logged:
                self._logged.add(reason)
                get_logger("generation").warning("%s", sentence, exc_info=trace)

    def tell(self, p: Any, sentence: str) -> None:
        """Say something to the user, once."""
        if sentence not in self.messages:
            self.messages.append(sentence)
            if self.comments:
                self.host.tell(p, sentence)

    # --- one pass ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _wanted(settings: StitchSettings, hires: bool) -> bool:
        return settings.hires in ("both", "second" if hires else "first")

    def _place(self, p: Any, settings: StitchSettings, x: Tensor, conditioning: Any) -> None:
        """Plan the pass, bring the models together, and put the engine on the host's model."""
        self.host.heal()
        sampling = self.host.sampling(p, x, conditioning)
        sampling = replace(sampling, run=replace(sampling.run, profile=self._profile(p, settings)))
        large = self.host.large(p, settings)
        with ExitStack() as undo:  # all of it at once, unless all goes well
            undo.callback(large.rest)
            setup = _setup(settings, sampling, large)
            resolved, small = self._resolve(settings, sampling, setup), None
            if resolved.plan.needs_small:
                small, file = undo.enter_context(small_model(self.host, self.slot, p, settings, large, setup))
                self.small_hash = self._hash_of(file)
                setup = replace(setup, small=small.config)
                resolved = self._resolve(settings, sampling, setup)
            reserve = self._cache_bytes(settings, resolved.plan, setup, large, x)
            self._say_beforehand(p, sampling, resolved)
            stitcher = Stitcher(
                large.model,
                small.model() if small else None,
                resolved.plan,
                sampling.guidance,
                large.config.patch_size,
                fp8_cache=settings.kv_cache == "fp8",
                use_cache=settings.kv_cache != "off",
                region=sampling.region,
            )
            undo.callback(stitcher.finish)
            undo.callback(self.host.install(p, large, small, reserve, stitcher))
            self._undo = undo.pop_all()
        self._open = Pass(sampling, resolved, setup, stitcher, large.hosts_own)

    def _resolve(self, settings: StitchSettings, sampling: Sampling, setup: Setup) -> Resolved:
        """The plan of a pass; every batch of a generation keeps to that of its first, whatever was measured since."""
        key = (sampling.run, setup, sampling.hires)
        if key not in self._resolved:
            times = self.timings.of(setup)
            self._resolved[key] = resolve(settings, sampling.run, setup, times, sampling.hires)
        return self._resolved[key]

    def _profile(self, p: Any, settings: StitchSettings) -> Profile | None:
        """What is known of the large model; a file that cannot be used is told, and the generic plan runs."""
        try:
            return profile_of(self.host.profiles(), self.host.large_hash(settings))
        except ProfileError as error:
            self.tell(p, f"HybridStitch: {error}")
            return None

    def _hash_of(self, file: CheckpointFile) -> str:
        """The small checkpoint's hash for the infotext, which can do without it."""
        try:
            return self.host.file_hash(file)
        except Exception:  # noqa: BLE001 - the host's cache may be read-only, full, or being written
            get_logger("generation").warning("HybridStitch cannot hash %s", file.path.name, exc_info=True)
            return ""

    def _cache_bytes(self, settings: StitchSettings, plan: Plan, setup: Setup, large: LargeModel, x: Tensor) -> int:
        """Memory that keys and values will take, once it is known that it is there."""
        dtype = large.model.dtype or x.dtype
        itemsize = {"off": 0, "fp8": 1}.get(settings.kv_cache, x.new_empty((), dtype=dtype).element_size())
        reserve = cache_bytes(plan, setup, itemsize)
        if short := Budget(cache=reserve).shortage(self.host.memory(large.model.device or x.device)):
            raise StitchError(short)
        return reserve

    def _say_beforehand(self, p: Any, sampling: Sampling, resolved: Resolved) -> None:
        """What acts on one model only, and advice, go below the picture; why a plan is careful stays in the figures."""
        for sentence in (*sampling.notes, resolved.advice):
            if sentence:
                self.tell(p, f"HybridStitch: {sentence}")
        self.messages.extend(f"HybridStitch: {note}" for note in resolved.plan.notes)
        if resolved.plan.needs_small and sampling.loras:
            names = ", ".join(sampling.loras)
            self.tell(p, f"HybridStitch: LoRA {names} acts on the large model only; the small model draws without it.")

    def _close_pass(self) -> None:
        """Take the engine off the host's model, and keep what it did."""
        opened, self._open = self._open, None
        undo, self._undo = self._undo, ExitStack()
        try:
            undo.close()
        finally:
            if opened is not None and (records := opened.stitcher.report.evaluations()):
                self.passes.append(summary.Done.of(opened, records))
                if not opened.stitcher.report.failure:
                    self.timings.learn(opened.setup, records)


def _setup(settings: StitchSettings, sampling: Sampling, large: LargeModel) -> Setup:
    images, _, height, width = sampling.latent
    patch = large.config.patch_size
    return Setup(
        large.config,
        None,
        (height // patch) * (width // patch),
        sampling.context,
        images,
        sampling.streams,
        settings.kv_cache,
        settings.small_device,
    )
