"""What A1111 and the Forge family have in common; they keep the same names for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lib_hybridstitch.errors import CheckpointError, SettingsError, StitchError, quoted
from lib_hybridstitch.hosts.base import CheckpointFile, Sampling
from lib_hybridstitch.plans.method import Run
from lib_hybridstitch.plans.plan import run_sigmas
from lib_hybridstitch.prediction.memory import Memory
from lib_hybridstitch.settings import CURRENT, StitchSettings

DEFAULT_SHIFT = 3.0
"""The shift that SD3's schedule is made with."""


def assumed_schedule(steps: int) -> tuple[float, ...]:
    """SD3's plain schedule of `steps` noise levels, for predictions while no model is loaded; without the final 0."""
    levels = (1 - step / steps for step in range(steps))
    return tuple(DEFAULT_SHIFT * level / (1 + (DEFAULT_SHIFT - 1) * level) for level in levels)


class SharedHost:
    """The part of an adapter that is the same in both families."""

    name = ""
    default_context = 154
    """text tokens of a prompt of one chunk"""
    _last_context = 0

    def problem(self) -> str:
        """Why the extension cannot work here; these hosts can."""
        return ""

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def checkpoint_titles(self) -> list[str]:
        """Every checkpoint of the host's list, by the host's own short name."""
        from modules import sd_models

        return [info.name_for_extra for info in sd_models.checkpoints_list.values()]

    def refresh_checkpoints(self) -> None:
        """Read the checkpoint folders again."""
        from modules import sd_models

        sd_models.list_models()

    def find_checkpoint(self, name: str) -> CheckpointFile:
        """Look a checkpoint up in the host's list.

        Raises:
            CheckpointError: when the list has none of exactly that name; the host itself would take a near miss.
        """
        from modules import sd_models

        info = sd_models.get_closet_checkpoint_match(name)
        names = (
            [] if info is None else [*info.ids, info.title, info.name, info.name_for_extra, Path(info.filename).name]
        )
        if name not in names:
            near = f"; did you mean {info.name_for_extra}?" if info is not None else ""
            raise CheckpointError(
                f"{name}: is not in the WebUI's list of checkpoints, refresh the list or choose another one{near}"
            )
        path = Path(info.filename)
        if not _is_file(path):  # the host would wait for a pipe, and fail by a trace at what is gone
            raise CheckpointError(
                f"{name}: is in the WebUI's list of checkpoints but no file any more, refresh the list."
            )
        return CheckpointFile(info.title, path)

    def file_hash(self, file: CheckpointFile) -> str:
        """Short hash of a checkpoint, from the host's cache or computed into it; "" under --no-hashing."""
        from modules import hashes, sd_models

        info = sd_models.get_closet_checkpoint_match(file.title)
        digest = hashes.sha256(str(file.path), f"checkpoint/{info.name if info else file.path.name}")
        return digest[:10] if digest else ""

    def large_hash(self, settings: StitchSettings) -> str:
        """Short hash of the large model's checkpoint, as far as the host knows it already; else ""."""
        from modules import sd_models, shared

        chosen = settings.large_checkpoint
        info = sd_models.get_closet_checkpoint_match(shared.opts.sd_model_checkpoint if chosen == CURRENT else chosen)
        return str(getattr(info, "shorthash", None) or "")

    def profiles(self) -> Path:
        """The folder of profiles, in the host's data folder; it need not exist."""
        from modules import paths

        return Path(paths.data_path) / "hybridstitch" / "profiles"

    # --- schedules ---------------------------------------------------------------------------------------------------

    def run(self, sampler: str, scheduler: str, steps: int, strength: float = 1.0) -> Run:
        """What a run would sample: the host's own schedule where a model is loaded, else SD3's plain one.

        Raises:
            SettingsError: when the host has no sampler, or no schedule, of that name.
        """
        from modules import sd_samplers, sd_schedulers

        _check_listed("sampler", sampler, sd_samplers.all_samplers_map)
        _check_listed("scheduler", scheduler, sd_schedulers.schedulers_map)
        levels = run_sigmas(self._schedule(sampler, scheduler, steps))
        if strength < 1:  # the hosts' arithmetic of img2img
            levels = levels[max(len(levels) - int(min(strength, 0.999) * len(levels)) - 1, 0) :]
        return Run(levels, ancestral=_adds_noise(sd_samplers.all_samplers_map[sampler]))

    def _schedule(self, sampler: str, scheduler: str, steps: int) -> Sequence[float]:
        from modules import sd_models, sd_samplers

        model = sd_models.model_data.sd_model
        if not hasattr(model, "sd_checkpoint_info"):  # there is nothing, or a placeholder, before the first load
            return assumed_schedule(steps)
        made = sd_samplers.create_sampler(sampler, model)
        if not hasattr(made, "get_sigmas"):
            return assumed_schedule(steps)
        request = SimpleNamespace(
            scheduler=scheduler,
            hr_scheduler=scheduler,
            is_hr_pass=False,
            sampler_noise_scheduler_override=None,
            extra_generation_params={},
            steps=steps,
        )
        return _levels(made.get_sigmas(request, steps))

    def context(self) -> int:
        """Text tokens of a prompt, for predictions: as many as in the last pass, else those of one chunk."""
        return self._last_context or self.default_context

    def sampling(self, p: Any, x: Tensor, conditioning: Any) -> Sampling:
        """Describe the pass that is about to begin.

        Raises:
            StitchError: when its sampler hands over timesteps instead of noise levels.
        """
        if not hasattr(p.sampler, "get_sigmas"):
            raise StitchError(
                f"the sampler {p.sampler_name} does not work with noise levels, so there is nothing to place the "
                "stages on; choose another one, such as Euler or DPM++ 2M"
            )
        hires = bool(getattr(p, "is_hr_pass", False))
        parts = max((len(image) for image in conditioning.batch), default=1)
        shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        self._last_context = _longest(conditioning, self.default_context)
        return Sampling(
            run=Run(self._sampled(p, hires), self._has_uncond(p, hires), _adds_noise(p.sampler.config)),
            latent=shape,
            streams=parts + self._has_uncond(p, hires),
            context=self._last_context,
            guidance=self._guidance(p, hires),
            hires=hires,
            region=None if hires else _region(getattr(p, "nmask", None), shape),
            loras=self._loras(p),
            notes=self._notes(p),
        )

    def _sampled(self, p: Any, hires: bool) -> tuple[float, ...]:
        """The part of the schedule that this pass goes through, by the host's own arithmetic."""
        from modules import sd_samplers_common

        if not hires and not hasattr(p, "init_latent"):
            return run_sigmas(_levels(p.sampler.get_sigmas(p, p.steps)))
        wanted = (p.hr_second_pass_steps or p.steps) if hires else None
        steps, encoded = sd_samplers_common.setup_img2img_steps(p, wanted)
        return run_sigmas(_levels(p.sampler.get_sigmas(p, steps)[steps - encoded - 1 :]))

    def _guidance(self, p: Any, hires: bool) -> float:
        raise NotImplementedError

    def _has_uncond(self, p: Any, hires: bool) -> bool:
        raise NotImplementedError

    def _loras(self, p: Any) -> tuple[str, ...]:
        raise NotImplementedError

    def _notes(self, p: Any) -> tuple[str, ...]:
        refiner = getattr(p, "refiner_checkpoint", None)
        if refiner in (None, "", "None", "none"):
            return ()
        return (f"the refiner replaces the model by {refiner} at its switch; nothing is stitched from there on.",)

    # --- devices and messages ----------------------------------------------------------------------------------------

    def second_device(self) -> torch.device:
        """The device named by the command line, else the second CUDA device.

        Raises:
            SettingsError: when this machine has none.
        """
        from modules import shared

        named = getattr(shared.cmd_opts, "hybridstitch_second_device", None)
        if named:
            try:
                device = torch.device(named)
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:
                raise SettingsError(
                    f"small_device is 'second', but --hybridstitch-second-device {named} is no device of this machine; "
                    "name one such as cuda:1 or cpu.",
                    "small_device",
                ) from error
            return device
        if torch.cuda.device_count() > 1:
            return torch.device("cuda", 1)
        raise SettingsError(
            "small_device is 'second', but this machine has one device; choose keep or park, or name a device with "
            "--hybridstitch-second-device.",
            "small_device",
        )

    def memory(self, device: torch.device) -> Memory:
        """Memory of a device; main memory for the CPU."""
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return Memory(free + held, total)
        import psutil

        memory = psutil.virtual_memory()
        return Memory(memory.available, memory.total)

    def tell(self, p: Any, sentence: str) -> None:
        """Show a sentence below the finished picture."""
        p.comment(sentence)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show what is going on beside the progress bar."""
        from modules import shared

        before = shared.state.textinfo
        shared.state.textinfo = text
        try:
            yield
        finally:
            shared.state.textinfo = before

    def task(self) -> str:
        """The task of the generation that is running, as the page and the API's progress name it; "" for none."""
        from modules import progress

        return str(getattr(progress, "current_task", None) or "")

    def was_stopped(self) -> bool:
        """Whether the user has interrupted or skipped the generation."""
        from modules import shared

        return bool(shared.state.interrupted or shared.state.skipped)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be entered
        return False


def _check_listed(key: str, name: str, listed: Iterable[str]) -> None:
    """Refuse what the host's list has not; the host itself would take another one without a word."""
    names = dict.fromkeys(listed)
    if name not in names:
        raise SettingsError(f"{key} is {quoted(name)}, but must be one of {', '.join(names)}.", key)


def _levels(sigmas: Tensor) -> tuple[float, ...]:
    return tuple(float(sigma) for sigma in sigmas)


def _adds_noise(sampler: Any) -> bool:
    """Whether a sampler of the host's list adds fresh noise in every step."""
    options = sampler.options
    return bool(options.get("uses_ensd") or options.get("brownian_noise")) or sampler.name == "LCM"


def _longest(conditioning: Any, default: int) -> int:
    """Text tokens of the longest prompt of a compiled batch."""
    lengths = [_tokens(schedule.cond) for image in conditioning.batch for part in image for schedule in part.schedules]
    return max(lengths, default=default)


def _tokens(cond: Any) -> int:
    tokens = cond["crossattn"] if isinstance(cond, dict) else cond
    return int(tokens.shape[0])


def _region(mask: Tensor | None, latent: Sequence[int], patch: int = 2) -> Tensor | None:
    """Which tokens (N,) a latent inpaint mask (channels, H, W) or (1, channels, H, W), 1 where painted, touches."""
    if mask is None or tuple(mask.shape[-2:]) != tuple(latent[-2:]):
        return None
    painted = mask.reshape(-1, *mask.shape[-2:]).amax(0)[None, None].float()
    return torch.nn.functional.max_pool2d(painted, patch).flatten() > 0


def foreign_forward(network: Any, forward: Callable[..., Any]) -> str:
    """The module that has replaced a network's forward pass, on the instance or its class, or ""."""
    own = type(network).__module__
    module = str(getattr(forward, "__module__", "") or "")
    return "" if module == own else module


def foreign_note(module: str) -> str:
    """What happens when somebody else has replaced the large model's forward pass."""
    return (
        f"another accelerator ({module}) has replaced the large model's forward pass: its full steps go through it, "
        "masked steps do not; turn one of the two off for predictable pictures."
    )


def loaded_lora_names() -> tuple[str, ...]:
    """Names of the LoRAs that A1111's own Lora extension has applied."""
    networks = getattr(sys.modules.get("networks"), "loaded_networks", ())
    return tuple(str(network.name) for network in networks)
