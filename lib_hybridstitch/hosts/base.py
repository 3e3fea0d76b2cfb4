"""What the extension asks of a WebUI: one protocol, which each adapter fulfils.

Adapters import the host's modules inside their functions, so that this package can be read and tested without a WebUI.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lib_hybridstitch.engine.evaluation import Model
    from lib_hybridstitch.engine.stitcher import Stitcher
    from lib_hybridstitch.mmdit.config import MMDiTConfig
    from lib_hybridstitch.plans.method import Run
    from lib_hybridstitch.prediction.memory import Budget, Memory
    from lib_hybridstitch.prediction.operations import Setup
    from lib_hybridstitch.settings import StitchSettings


@dataclass(frozen=True)
class CheckpointFile:
    """A file of the host's own list.

    Args:
        title: as the host's list names it.
        path: where it lies.
    """

    title: str
    path: Path


@dataclass(frozen=True)
class Sampling:
    """What the host is about to sample: one pass of one batch.

    Args:
        run: the part of the schedule that is sampled, and what a method must know of the sampler.
        latent: shape (images, channels, H, W).
        streams: most rows per image in one evaluation (2 with guidance, 1 without, more with AND).
        context: text tokens of the longest prompt.
        guidance: scale of classifier-free guidance.
        hires: whether this is the second pass of hires fix.
        region: (N,) bool, tokens that the user's inpaint mask touches; None for the whole picture.
        loras: names of the LoRAs on the large model.
        notes: sentences for the user about what else acts on the model.
    """

    run: Run
    latent: tuple[int, int, int, int]
    streams: int
    context: int
    guidance: float
    hires: bool
    region: Tensor | None
    loras: tuple[str, ...]
    notes: tuple[str, ...]


class SmallModel(Protocol):
    """A second transformer, loaded once and kept."""

    config: MMDiTConfig

    def model(self) -> Model:
        """How the engine calls it in the pass that is open."""
        ...

    def rest(self) -> None:
        """The pass is over: go where the setting `small_device` wants it between runs."""
        ...

    def release(self) -> None:
        """Give its memory back; it is not used again."""
        ...


class LargeModel(Protocol):
    """The model whose picture is wanted: the host's own, or a file where the host cannot run it."""

    config: MMDiTConfig
    model: Model
    hosts_own: bool
    """whether the host draws with it by itself too"""

    def rest(self) -> None:
        """The pass is over: let go of everything that belongs to it."""
        ...


class Host(Protocol):
    """A WebUI.

    Every method may be called from any thread of the host; those with a `p` (the host's StableDiffusionProcessing) run
    inside a generation. Errors of the library's own kind carry one sentence for the user.
    """

    name: str

    def version(self) -> str:
        """The host's own version, or ""."""
        ...

    def problem(self) -> str:
        """Why the extension cannot work here, in one sentence, or ""."""
        ...

    def checkpoint_titles(self) -> list[str]:
        """Every checkpoint of the host's list, by a name that `find_checkpoint` accepts."""
        ...

    def refresh_checkpoints(self) -> None:
        """Read the checkpoint folders again."""
        ...

    def find_checkpoint(self, name: str) -> CheckpointFile:
        """Look a checkpoint up in the host's list by title, file name or hash.

        Raises:
            CheckpointError: when the list has none of exactly that name.
        """
        ...

    def file_hash(self, file: CheckpointFile) -> str:
        """Short hash of a checkpoint, as the host counts it; may read the whole file once. "" where it counts none."""
        ...

    def large_config(self, settings: StitchSettings) -> MMDiTConfig | None:
        """Architecture of the large model without loading anything; None when it cannot be known yet."""
        ...

    def large_hash(self, settings: StitchSettings) -> str:
        """Short hash of the large model's checkpoint, as far as the host knows it already; else ""."""
        ...

    def profiles(self) -> Path:
        """The folder of profiles, in the host's data folder; it need not exist."""
        ...

    def run(self, sampler: str, scheduler: str, steps: int, strength: float = 1.0) -> Run:
        """What a run would sample, for predictions; by the host's own schedule where a model is loaded.

        Args:
            strength: below 1 of an img2img run.

        Raises:
            SettingsError: when the host has no sampler, or no schedule, of that name.
        """
        ...

    def context(self) -> int:
        """Text tokens of a prompt, for predictions: as many as in the last pass, else those of one chunk."""
        ...

    def second_device(self) -> torch.device:
        """The device for `small_device` "second".

        Raises:
            SettingsError: when this machine has none.
        """
        ...

    def memory(self, device: torch.device) -> Memory:
        """Memory of a device, and what the host will make free there by itself."""
        ...

    def sampling(self, p: Any, x: Tensor, conditioning: Any) -> Sampling:
        """Describe the pass that is about to begin.

        Args:
            p: the host's processing object.
            x: latent (images, channels, H, W).
            conditioning: the host's compiled prompts.

        Raises:
            StitchError: when its sampler does not tell noise levels.
        """
        ...

    def large(self, p: Any, settings: StitchSettings) -> LargeModel:
        """The large model of this pass."""
        ...

    def small_key(self, file: CheckpointFile, settings: StitchSettings) -> Hashable:
        """What a loaded small model depends on: it is loaded again when this changes."""
        ...

    def small_device(self, settings: StitchSettings) -> torch.device:
        """Where the small model computes."""
        ...

    def small_budget(self, p: Any, file: CheckpointFile, settings: StitchSettings, setup: Setup) -> Budget:
        """What loading and running it will take on its device."""
        ...

    def load_small(self, file: CheckpointFile, settings: StitchSettings) -> SmallModel:
        """Load a checkpoint's transformer beside the current model.

        Raises:
            CheckpointError: in one sentence, when the file cannot be used.
        """
        ...

    def install(
        self,
        p: Any,
        large: LargeModel,
        small: SmallModel | None,
        reserve: int,
        engine: Stitcher,
    ) -> Callable[[], None]:
        """Route the model's evaluations of this pass through the engine; returns what undoes it.

        Args:
            reserve: bytes that caches will take, for the host's memory manager.
            engine: of this pass.
        """
        ...

    def heal(self) -> None:
        """Remove whatever an earlier run may have left on the host's model, without asking for one to be loaded."""
        ...

    def on_cfg_denoiser(self, params: Any) -> None:
        """The host's callback before each evaluation."""
        ...

    def release(self) -> bool:
        """Give back what the adapter itself keeps between runs; return whether there was anything."""
        ...

    def tell(self, p: Any, sentence: str) -> None:
        """Show a sentence below the finished picture."""
        ...

    def task(self) -> str:
        """The task of the generation that is running, by the name the page knows it by; "" when there is none."""
        ...

    def was_stopped(self) -> bool:
        """Whether the user has interrupted or skipped the generation."""
        ...

    def status(self, text: str) -> AbstractContextManager[None]:
        """Show what is going on beside the progress bar, while it goes on."""
        ...
