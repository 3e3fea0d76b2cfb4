"""One generation of the host: from its settings, through every pass of every batch, to what really happened.

The scope of everything that is placed on the host's model is `p.sample`: its end is reached after hires passes,
interrupts and exceptions alike, and before other extensions work on the finished picture.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lib_hybridstitch.engine.stitcher import Stitcher
from lib_hybridstitch.errors import HybridStitchError, PairError, StitchError, in_words, one_line
from lib_hybridstitch.generation import summary
from lib_hybridstitch.hosts.base import Host, LargeModel, Sampling, SmallModel
from lib_hybridstitch.hosts.patch import patch_instance
from lib_hybridstitch.hosts.slot import Shelf
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.plans.plan import Plan, make_plan
from lib_hybridstitch.prediction import memory as budget
from lib_hybridstitch.prediction.cost import Costs, forecast
from lib_hybridstitch.prediction.target import Aim, aim
from lib_hybridstitch.prediction.timings import Paces, RunKind
from lib_hybridstitch.settings import StitchSettings, specs

Undo = Callable[[], None]


@dataclass
class Pass:
    """One pass of one batch, while it is sampled.

    Args:
        sampling: what the host said about it.
        plan: its stages.
        stitcher: the engine, with its report.
        undo: takes the engine off the host's model.
        large: the large model in use.
        small: the small model in use.
        foreseen: its speed-up by the forecast.
        kind: what its times depend on.
    """

    sampling: Sampling
    plan: Plan
    stitcher: Stitcher
    undo: Undo
    large: LargeModel
    small: SmallModel | None
    foreseen: float
    kind: RunKind


@dataclass
class Generation:
    """What HybridStitch does in one generation (`p`) of the host.

    Args:
        host: the WebUI.
        p: its processing object, held weakly.
        settings: of this generation; None when they were refused, and then `stopped` says why.
        shelf: where the small model is kept.
        paces: what steps took in earlier runs.
        on_end: called when a batch is over.
        comments: whether sentences go below the picture.
        timings: whether milliseconds go into infotext.
        stopped: why stitching ended or never began, or "".
        small_hash: of the small checkpoint, or "" where the host has not computed it.
        messages: what the user was told in the last batch.
        passes: of the last batch, finished.
        aimed: what the wished speed-up came to in the first pass; all that follow keep to it.
    """

    host: Host
    p: weakref.ReferenceType[Any]
    settings: StitchSettings | None
    shelf: Shelf[SmallModel]
    paces: Paces
    on_end: Callable[[Generation], None]
    comments: bool = True
    timings: bool = False
    stopped: str = ""
    small_hash: str = ""
    messages: list[str] = field(default_factory=list)
    passes: list[summary.Done] = field(default_factory=list)
    aimed: Aim | None = None
    _open: Pass | None = None
    _unwrap: Undo | None = None
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
                    for _ in range(2):  # again, in case something strikes in the first
                        with self.guarded(p):
                            self.end_batch(p)

            return sample

        self._unwrap = patch_instance(p, "sample", make)

    def open_pass(self, p: Any, x: Tensor, conditioning: Any) -> None:
        """Place the engine on the model for the pass that begins; whatever goes wrong leaves the large model alone."""
        with self.guarded(p):
            self._close_pass(p)
            if self.settings is None or not self._wanted(bool(getattr(p, "is_hr_pass", False))):
                return
            if self._sampling:
                self._open = self._place(p, x, conditioning)
            elif not self.stopped:
                self.stop(p, "another extension has replaced the sampling, whose end could not be noticed")
                self.report(p)

    def end_batch(self, p: Any) -> None:
        """Sampling is over, however it ended: take everything off the host and write down what happened.

        Nothing that goes wrong in here reaches the host, whose picture is finished.
        """
        unwrap, self._unwrap = self._unwrap, None
        opened = self._open
        with ExitStack() as steps:
            if unwrap is not None:
                steps.callback(self._tell_what_happened, p, opened)
                steps.callback(self._guardedly, p, unwrap)
                steps.callback(self._guardedly, p, unwrap)
            # Each of them again, in case something strikes in the first: the host must not miss them.
            steps.callback(self._guardedly, p, lambda: self._close_pass(p))
            steps.callback(self._guardedly, p, lambda: self._close_pass(p))

    def break_off(self, p: Any, error: Exception) -> None:
        """Something of ours broke in a hook: the large model goes on alone, and the user is told."""
        reason = in_words(error)
        if self._open is not None:
            self._open.stitcher.give_up(reason)
        told = self._open is not None and self._open.stitcher.report.failure == reason
        self.stop(p, reason, logged=told, trace=None if isinstance(error, HybridStitchError) else error)

    def interrupt(self, reason: str) -> bool:
        """Let the large model finish what is being sampled; may come from another thread. Whether there is anything."""
        if (opened := self._open) is not None:
            opened.stitcher.ask_to_stop(reason)
        return self._sampling

    @contextmanager
    def guarded(self, p: Any) -> Iterator[None]:
        """Around work of ours: the picture comes first, whatever goes wrong in it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            try:
                self.break_off(p, error)
            except Exception:  # noqa: BLE001 - telling the user is the last that can be done, and the log knows already
                get_logger("hosts").exception("HybridStitch could not tell that it stopped")

    def _guardedly(self, p: Any, step: Callable[[], None]) -> None:
        with self.guarded(p):
            step()

    def _tell_what_happened(self, p: Any, opened: Pass | None) -> None:
        with self.guarded(p):
            self._look_back(p, opened)
            self.report(p)
            return
        self.passes.clear()  # where that fails, at least that it failed
        with self.guarded(p):
            self.report(p)

    def _look_back(self, p: Any, opened: Pass | None) -> None:
        if opened is not None and not opened.stitcher.called and not self.host.was_stopped():
            self.stop(p, "the model was never called through HybridStitch, because another extension took its place")
        for done in self.passes:
            if done.report.failure:
                self.stop(p, done.report.failure, logged=True)

    def report(self, p: Any) -> None:
        """Write down what happened, where infotext and the last run's figures have it."""
        summary.write(p.extra_generation_params, self)
        self.on_end(self)

    def stop(self, p: Any, reason: str, logged: bool = False, trace: Exception | None = None) -> None:
        """Note why stitching ended or never began; the large model goes on without us.

        Args:
            logged: whether the log knows of it already; it is told once in a generation.
            trace: an error that the log shall show with the lines it came from.
        """
        reason = one_line(reason)  # what other programs raise may have many
        if reason == self.stopped:
            return
        self.stopped = reason
        if not logged and reason not in self._logged:
            self._logged.add(reason)
            get_logger("hosts").warning(
                "HybridStitch did not stitch, the large model makes the picture: %s", reason, exc_info=trace
            )
        self.tell(p, f"HybridStitch stopped, the large model made the picture: {reason}")

    def tell(self, p: Any, sentence: str) -> None:
        """Say something to the user, once."""
        if sentence not in self.messages:
            self.messages.append(sentence)
            if self.comments:
                self.host.tell(p, sentence)

    # --- one pass ----------------------------------------------------------------------------------------------------

    def _wanted(self, hires: bool) -> bool:
        assert self.settings is not None, "asked before"
        return self.settings.hires in ("both", "second" if hires else "first")

    def _place(self, p: Any, x: Tensor, conditioning: Any) -> Pass:
        assert self.settings is not None, "asked before"
        self.host.heal()
        sampling = self.host.sampling(p, x, conditioning)
        large = self.host.large(p, self.settings)
        with ExitStack() as undone:  # unless all goes well
            undone.callback(self.shelf.put_back)
            undone.callback(large.rest)
            placed = self._place_beside(p, x, self.settings, sampling, large, undone)
            undone.pop_all()
        return placed

    def _place_beside(
        self,
        p: Any,
        x: Tensor,
        settings: StitchSettings,
        sampling: Sampling,
        large: LargeModel,
        undone: ExitStack,
    ) -> Pass:
        plan = make_plan(settings, sampling.sigmas)
        small = self._small(p, settings, large, sampling) if plan.needs_small else None
        if small is not None:
            undone.callback(small.rest)
        kind = _kind(settings, sampling, large, small)
        if settings.target_speedup:
            settings = self._aim(p, settings, sampling, kind)
            plan = make_plan(settings, sampling.sigmas)
        itemsize = self._cache_itemsize(settings, large, x)
        reserve = budget.cache_bytes(plan, large.config, small.config if small else None, sampling, itemsize)
        free = self.host.memory(large.side.device or x.device)
        if short := budget.Budget(cache=reserve).shortage(free, self.host.movable()):
            raise StitchError(short)
        foreseen = self._advise(p, plan, sampling, kind)
        stitcher = Stitcher(
            large.side,
            small.side() if small else None,
            plan,
            large.config.patch_size,
            fp8_cache=settings.kv_cache == "fp8",
            use_cache=settings.kv_cache != "off",
            keep_masks=settings.show_mask,
            region=sampling.region,
        )
        undo = self.host.install(p, large, small, reserve, stitcher)
        undone.callback(undo)
        return Pass(sampling, plan, stitcher, undo, large, small, foreseen, kind)

    def _small(self, p: Any, settings: StitchSettings, large: LargeModel, sampling: Sampling) -> SmallModel:
        """The small model, loaded where it is not yet, after asking whether it fits."""
        if not settings.small_checkpoint:
            raise StitchError("this plan needs a small model: choose a small checkpoint, SD3.5-Medium for SD3.5-Large")
        file = self.host.find_checkpoint(settings.small_checkpoint)
        self.small_hash = self.host.file_hash(file)
        key = self.host.small_key(file, settings)
        if not self.shelf.holds(key):
            need = self.host.small_budget(p, file, settings, sampling)
            if short := need.shortage(self.host.memory(self.host.small_device(settings)), self.host.movable()):
                raise StitchError(short)
        with self.host.status(f"HybridStitch: loading {file.path.stem}"):
            small = self.shelf.take(key, lambda: self.host.load_small(file, settings))
        try:
            large.config.check_pair(small.config, "the large checkpoint", file.path.name)
        except PairError:
            self.shelf.release()
            raise
        return small

    @staticmethod
    def _cache_itemsize(settings: StitchSettings, large: LargeModel, x: Tensor) -> int:
        if settings.kv_cache == "off":
            return 0
        dtype = large.side.dtype or x.dtype
        return 1 if settings.kv_cache == "fp8" else x.new_empty((), dtype=dtype).element_size()

    def _advise(self, p: Any, plan: Plan, sampling: Sampling, kind: RunKind) -> float:
        """Say what acts on one model only, and when nothing can be gained; return the speed-up of the forecast."""
        told = forecast(plan, sampling.pass_sigmas, self._costs(kind, plan, sampling))
        assert self.settings is not None, "asked before"
        wish = self.settings.target_speedup
        for sentence in (*sampling.notes, self.aimed.advice(wish) if self.aimed else told.advice):
            if sentence:
                self.tell(p, f"HybridStitch: {sentence}")
        if kind.small is not None and sampling.loras:
            names = ", ".join(sampling.loras)
            self.tell(p, f"HybridStitch: LoRA {names} acts on the large model only; the small model draws without it.")
        return told.speedup

    def _aim(self, p: Any, settings: StitchSettings, sampling: Sampling, kind: RunKind) -> StitchSettings:
        """The settings that a wished speed-up comes to, recorded in the infotext in its place."""
        if self.aimed is None:
            self.aimed = aim(
                settings, sampling.sigmas, sampling.pass_sigmas, lambda plan: self._costs(kind, plan, sampling)
            )
            for spec in specs().values():
                p.extra_generation_params.pop(spec.infotext, None)
            p.extra_generation_params.update(self.aimed.settings.to_infotext())
        return self.aimed.settings

    def _costs(self, kind: RunKind, plan: Plan, sampling: Sampling) -> Costs:
        return self.paces.costs(kind, kind.counted(plan, sampling.context))

    def _close_pass(self, p: Any) -> None:
        opened, self._open = self._open, None
        if opened is None:
            return
        # Undone again, in case something strikes in the first: it is the one step that the host must not miss.
        steps = [opened.undo, opened.undo, opened.stitcher.finish, opened.large.rest, self.shelf.put_back]
        if opened.small is not None:
            steps.insert(-1, opened.small.rest)
        with ExitStack() as each:  # each of them, whatever becomes of the others
            for step in reversed(steps):
                each.callback(self._guardedly, p, step)
        report = opened.stitcher.report
        if not report.records:
            return
        self.passes.append(
            summary.Done(
                opened.sampling,
                opened.plan.method,
                report,
                patch=opened.stitcher.patch,
                used_small=opened.small is not None,
                foreseen=opened.foreseen,
                hosts_own=opened.large.hosts_own,
            )
        )
        if not report.failure:
            self.paces.learn(opened.kind, report.evaluations())


def _kind(settings: StitchSettings, sampling: Sampling, large: LargeModel, small: SmallModel | None) -> RunKind:
    images, _, height, width = sampling.latent
    patch = large.config.patch_size
    tokens, rows = (height // patch) * (width // patch), images * sampling.streams
    small_config = small.config if small else None
    return RunKind(large.config, small_config, tokens, rows, settings.kv_cache, settings.small_device, sampling.streams)
