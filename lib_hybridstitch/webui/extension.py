"""The extension as one load of its script: what it keeps between generations, and what each hook of the host does."""

from __future__ import annotations

import json
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lib_hybridstitch.errors import SettingsError, in_words
from lib_hybridstitch.generation import summary
from lib_hybridstitch.generation.generation import Generation
from lib_hybridstitch.hosts.base import Host, SmallModel
from lib_hybridstitch.hosts.slot import ModelSlot
from lib_hybridstitch.log import get_logger
from lib_hybridstitch.prediction.timings import Timings
from lib_hybridstitch.settings import StitchSettings
from lib_hybridstitch.webui import xyz
from lib_hybridstitch.webui.options import Options

KEPT_RUNS = 16
"""As many as the hosts themselves remember finished tasks."""


class Extension:
    """One load of the extension. Both Script instances (txt2img and img2img) hand their hooks to the same one.

    Args:
        host: the WebUI.
        options: reads the settings page.
    """

    def __init__(self, host: Host, options: Callable[[], Options]) -> None:
        self.host = host
        self.options = options
        self.slot: ModelSlot[SmallModel] = ModelSlot()
        self.timings = Timings()
        self.last_run: dict[str, Any] | None = None
        self._runs: OrderedDict[str, str] = OrderedDict()
        self._generations: list[Generation] = []

    # --- hooks of a generation, in the order in which they come -------------------------------------------------------

    def before_process(self) -> None:
        """Undo what a generation that died may have left; runs whether or not the accordion is ticked."""
        self.host.heal()

    def process(self, p: Any, args: Sequence[Any]) -> None:
        """Read and check the settings; nothing is placed on the model yet."""
        with self._guarded(p):
            self._process(p, args)

    def _process(self, p: Any, args: Sequence[Any]) -> None:
        self._forget(p)
        summary.renew(p)
        try:
            settings = self.settings(args, xyz.changes(p))
        except SettingsError as error:
            self._refuse(p, args, error)
            return
        if not settings.enabled:
            return
        if problem := self.host.problem():
            self._note(p, settings).stop(p, problem)
            return
        self._note(p, settings)
        p.extra_generation_params.update(settings.to_infotext())

    def process_batch(self, p: Any) -> None:
        """Prepare for a batch."""
        with self._guarded(p):
            if generation := self._of(p):
                generation.begin_batch(p)

    def process_before_every_sampling(self, p: Any, x: Any, conditioning: Any) -> None:
        """Place the engine on the model for the pass that begins."""
        with self._guarded(p):
            if generation := self._of(p):
                generation.open_pass(p, x, conditioning)

    def on_cfg_denoiser(self, params: Any) -> None:
        """An evaluation begins."""
        try:
            self.host.on_cfg_denoiser(params)
        except Exception as error:  # noqa: BLE001 - the picture comes first
            for generation in self._generations:
                generation.interrupt(in_words(error))

    def postprocess(self, p: Any) -> None:
        """The generation is over."""
        self._forget(p)

    @contextmanager
    def _guarded(self, p: Any) -> Iterator[None]:
        """Around a hook of ours: whatever goes wrong, the large model makes the picture."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            generation = self._of(p) or self._generation(p, None, Options())
            generation.settings = None
            with suppress(Exception):  # where not even telling succeeds, the picture still does
                generation.break_off(p, error)
            generation.report(p)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def settings(self, args: Sequence[Any], changes: Mapping[str, Any] | None = None) -> StitchSettings:
        """Settings from script arguments, with X/Y/Z changes and the settings page's small checkpoint.

        Raises:
            SettingsError: for anything that is not allowed.
        """
        settings = StitchSettings.from_args(args)
        if changes:
            settings = settings.with_changes(changes)
        if settings.enabled and not settings.small_checkpoint:
            settings = settings.with_changes({"small_checkpoint": self.options().small_checkpoint})
        return settings

    def run_of(self, task: str) -> dict[str, Any] | None:
        """The figures of one of the last generations, by the host's task; None when it is not among them."""
        kept = self._runs.get(task)
        return None if kept is None else dict(json.loads(kept))

    def release(self) -> bool:
        """Give back the memory of every model that the extension keeps; return whether there was one."""
        small = self.slot.release()
        return self.host.release() or small

    def release_in_words(self) -> str:
        """`release`, for the panel's button."""
        return "Released." if self.release() else "Nothing was loaded."

    def close(self) -> None:
        """The script is unloaded: leave nothing behind, and nothing once what is being sampled is done."""
        running = []
        for generation in self._generations:
            if generation.interrupt("the WebUI has reloaded its scripts meanwhile"):
                running.append(generation)
            elif (p := generation.p()) is not None:
                generation.end_batch(p)
        self._generations = running
        if not running:
            self.host.heal()
        self.release()

    def _note(self, p: Any, settings: StitchSettings | None) -> Generation:
        return self._generation(p, settings, self.options())

    def _generation(self, p: Any, settings: StitchSettings | None, options: Options) -> Generation:
        generation = Generation(
            self.host,
            weakref.ref(p),
            settings,
            self.slot,
            self.timings,
            self._finished,
            options.comments,
            options.timings,
        )
        self._generations.append(generation)
        return generation

    def _refuse(self, p: Any, args: Sequence[Any], error: SettingsError) -> None:
        """Tell the user, unless the extension is off anyway; a dict that does not say so may be mistyped."""
        first = args[0] if args else None
        if first is False or (isinstance(first, Mapping) and first.get("enabled") is False):
            get_logger("webui").warning("HybridStitch is off, but: %s", error)
            return
        generation = self._note(p, None)
        generation.stop(p, str(error))
        generation.report(p)

    def _finished(self, generation: Generation) -> None:
        self.last_run = summary.figures(generation)
        if not (task := self.last_run["task"]):
            return
        self._runs[task] = json.dumps(self.last_run)  # as text: the masks of a long run are a million numbers
        self._runs.move_to_end(task)
        while len(self._runs) > KEPT_RUNS:
            self._runs.popitem(last=False)

    def _of(self, p: Any) -> Generation | None:
        """The generation of this very object; other extensions generate in between with objects of their own."""
        return next((generation for generation in self._generations if generation.p() is p), None)

    def _forget(self, p: Any) -> None:
        """Drop the generation of `p`, and those whose object is gone."""
        self._generations = [known for known in self._generations if known.p() not in (None, p)]
