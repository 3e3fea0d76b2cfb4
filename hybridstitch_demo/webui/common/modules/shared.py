"""Options, command line, progress and the current model, where every extension looks for them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


class OptionInfo:
    """One setting of the Settings tab."""

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: Any = None,
        onchange: Callable[[], Any] | None = None,
        section: tuple[str, ...] | None = None,
        refresh: Any = None,
        comment_before: str = "",
        comment_after: str = "",
        infotext: str | None = None,
        restrict_api: bool = False,
        category_id: str | None = None,
    ) -> None:
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.onchange, self.section, self.refresh = onchange, section or (None, "Other"), refresh
        self.comment_before, self.comment_after, self.infotext = comment_before, comment_after, infotext
        self.restrict_api, self.category_id, self.do_not_save = restrict_api, category_id, False

    def info(self, text: str) -> OptionInfo:
        """Add an explanation behind the label."""
        self.comment_after += f"({text})"
        return self

    html = link = js = info

    def needs_restart(self) -> OptionInfo:
        """Note that it takes effect after a restart."""
        return self.info("requires restart")

    def needs_reload_ui(self) -> OptionInfo:
        """Note that it takes effect after Reload UI."""
        return self.info("requires Reload UI")


def options_section(identifier: tuple[str, ...], options: dict[str, OptionInfo]) -> dict[str, OptionInfo]:
    """Put options into one section."""
    for option in options.values():
        option.section, option.category_id = identifier[:2], (*identifier[2:], None)[0]
    return options


class Options:
    """Settings as attributes: the saved value, else the default; unknown names raise AttributeError."""

    def __init__(self, data_labels: dict[str, OptionInfo]) -> None:
        vars(self)["data_labels"] = data_labels
        vars(self)["data"] = {key: option.default for key, option in data_labels.items()}

    def __getattr__(self, key: str) -> Any:
        for known in (vars(self).get("data", {}), vars(self).get("data_labels", {})):
            if key in known:
                return known[key].default if isinstance(known[key], OptionInfo) else known[key]
        raise AttributeError(key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in self.data or key in self.data_labels:
            self.data[key] = value
        else:
            vars(self)[key] = value

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Register a setting; its value stays out of `data` until it is saved."""
        self.data_labels[key] = info

    def get_default(self, key: str) -> Any:
        """Default of a setting, or None."""
        return self.data_labels[key].default if key in self.data_labels else None

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Set a registered setting; return whether that changed it."""
        if self.data.get(key) == value or (is_api and self.data_labels[key].restrict_api):
            return False
        setattr(self, key, value)
        if run_callbacks and self.data_labels[key].onchange is not None:
            self.data_labels[key].onchange()
        return True


class State:
    """Progress of what runs, and the user's wish to stop it."""

    def __init__(self) -> None:
        self.begin()
        self.end()

    def dict(self) -> dict[str, Any]:
        """What the API tells of it."""
        names = (
            "skipped interrupted stopping_generation job job_count job_timestamp job_no sampling_step sampling_steps"
        )
        return {name: getattr(self, name) for name in names.split()}

    def begin(self, job: str = "") -> None:
        """Start a job."""
        self.skipped = self.interrupted = self.stopping_generation = self.processing_has_refined_job_count = False
        self.job, self.job_no, self.job_count, self.job_timestamp = job, 0, -1, "0"
        self.sampling_step = self.sampling_steps = 0
        self.current_latent = self.current_image = self.textinfo = None

    def end(self) -> None:
        """End a job."""
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        """Stop before the next evaluation and keep what there is."""
        self.interrupted = True

    def skip(self) -> None:
        """Stop this picture and go on with the next."""
        self.skipped = True

    def nextjob(self) -> None:
        """One pass of one batch is done."""
        self.job_no, self.sampling_step = self.job_no + 1, 0


class _Shared(ModuleType):
    @property
    def sd_model(self) -> Any:
        """The current model, which A1111 loads when it is first asked for."""
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = _Shared

_DEFAULTS: dict[str, Any] = {
    "sd_model_checkpoint": None,
    "batch_cond_uncond": True,
    "skip_early_cond": 0.0,
    "s_min_uncond": 0.0,
    "s_min_uncond_all": False,
    "pad_cond_uncond": False,
    "pad_cond_uncond_v0": False,
    "img2img_fix_steps": False,
    "initial_noise_multiplier": 1.0,
    "eta_ancestral": 1.0,
    "eta_ddim": 0.0,
    "always_discard_next_to_last_sigma": False,
    "hires_fix_refiner_pass": "second pass",
    "sd_vae_decode_method": "Full",
    "CLIP_stop_at_last_layers": 1,
    "forge_unet_storage_dtype": "Automatic",
    "forge_additional_modules": [],
    "sd_checkpoints_limit": 1,
    "live_previews_enable": True,
    "samples_save": False,
    "xyz_fallback": None,
}
opts = Options({key: OptionInfo(default) for key, default in _DEFAULTS.items()})
cmd_opts = SimpleNamespace(
    ckpt_dir=None,
    ckpt=None,
    lowvram=False,
    medvram=False,
    api=True,
    nowebui=False,
    no_half=False,
    disable_nan_check=False,
)
state = State()
device = torch.device("cpu")
demo: Any = None
latent_upscale_default_mode = "Latent"
latent_upscale_modes = {"Latent": {"mode": "bilinear", "antialias": False}}
total_tqdm = SimpleNamespace(update=lambda: None, updateTotal=lambda total: None, clear=lambda: None)
parallel_processing_allowed = True


def list_checkpoint_tiles(use_short: bool = False) -> list[str]:
    """Titles for drop-downs."""
    from modules import sd_models

    return sd_models.checkpoint_tiles(use_short)


def refresh_checkpoints() -> None:
    """Read the checkpoint folders again."""
    from modules import sd_models

    sd_models.list_models()


@contextlib.contextmanager
def override(settings: dict[str, Any], restore: bool) -> Iterator[None]:
    """Apply a request's settings; those which were not saved before are not restored, as on the hosts."""
    stored = {key: opts.data[key] for key in settings if key in opts.data}
    try:
        for key, value in settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
        yield
    finally:
        for key, value in stored.items() if restore else ():
            setattr(opts, key, value)
