"""The extension's page in the WebUI's settings, and the command line's word on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib_hybridstitch.hosts.base import Host

SECTION = ("hybridstitch", "HybridStitch")
CATEGORY = "sd"

SMALL_CHECKPOINT = "hybridstitch_small_checkpoint"
COMMENTS = "hybridstitch_comments"
TIMINGS = "hybridstitch_timings"

LABELS = {
    SMALL_CHECKPOINT: "Small checkpoint when none is chosen",
    COMMENTS: "Show messages below the picture",
    TIMINGS: "Record times in the infotext",
}
INFO = {
    SMALL_CHECKPOINT: "empty is the one named on the command line, if any",
    TIMINGS: "milliseconds per kind of step; the infotext of a picture made twice then differs",
}


@dataclass(frozen=True)
class Options:
    """The settings page's values.

    Args:
        small_checkpoint: used by a run that names none; "" is none.
        comments: whether sentences appear below the picture.
        timings: whether the infotext records milliseconds per kind of step.
    """

    small_checkpoint: str = ""
    comments: bool = True
    timings: bool = False


def texts() -> tuple[str, ...]:
    """Every text of the settings page that a language may translate, as the page shows it."""
    return (*LABELS.values(), *(f"({info})" for info in INFO.values()))  # the host puts an info into brackets


def register(host: Host) -> None:
    """Add the page; called by the WebUI when it collects settings, each time it loads its scripts."""
    import gradio as gr
    from modules import shared

    def checkpoints() -> dict[str, Any]:
        return {"choices": ["", *host.checkpoint_titles()]}

    listed = {"component": gr.Dropdown, "component_args": checkpoints, "refresh": host.refresh_checkpoints}
    shared.opts.add_option(SMALL_CHECKPOINT, _option(Options.small_checkpoint, SMALL_CHECKPOINT, **listed))
    shared.opts.add_option(COMMENTS, _option(Options.comments, COMMENTS))
    shared.opts.add_option(TIMINGS, _option(Options.timings, TIMINGS))


def _option(default: object, key: str, **more: Any) -> Any:
    from modules.options import OptionInfo

    option = OptionInfo(default, LABELS[key], section=SECTION, category_id=CATEGORY, **more)
    return option.info(INFO[key]) if key in INFO else option


def read(opts: Any, cmd_opts: object = None) -> Options:
    """The values in force.

    Args:
        opts: the WebUI's options; while it starts they may not know ours yet, then the defaults hold.
        cmd_opts: the WebUI's command line; `--hybridstitch-small` holds where the page names no checkpoint.
    """
    values = opts.data
    small = values.get(SMALL_CHECKPOINT) or getattr(cmd_opts, "hybridstitch_small", None)
    return Options(
        small_checkpoint=str(small or ""),
        comments=bool(values.get(COMMENTS, Options.comments)),
        timings=bool(values.get(TIMINGS, Options.timings)),
    )
