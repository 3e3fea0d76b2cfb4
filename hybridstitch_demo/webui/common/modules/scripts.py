"""Scripts: the base class, what its hooks are handed, and how the host calls them."""

from __future__ import annotations

import inspect
import re
import sys
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from modules import errors, paths, script_callbacks, script_loading
from modules.standin import journal

AlwaysVisible = object()
HOOKS = (
    "setup before_process process before_process_batch after_extra_networks_activate process_batch before_hr "
    "process_before_every_sampling post_sample postprocess_batch postprocess_batch_list postprocess_image "
    "postprocess_maskoverlay postprocess_image_after_composite postprocess on_mask_blend before_process_init_images"
).split()
FIRST = frozenset(
    "post_sample postprocess_batch_list postprocess_image postprocess_maskoverlay postprocess_image_after_composite "
    "postprocess on_mask_blend before_process_init_images".split()
)
"""hooks that are handed something between p and the script's arguments"""


class PostSampleArgs:
    """The latents after sampling; a hook may replace them."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples


class PostprocessImageArgs:
    """One picture; Forge tells its number too."""

    def __init__(self, image: Any, index: int = 0) -> None:
        self.image, self.index = image, index


class PostprocessBatchListArgs:
    """The pictures of a batch as tensors."""

    def __init__(self, images: list[Any]) -> None:
        self.images = images


class MaskBlendArgs:
    """An inpainting blend; without a denoiser it is the last one."""

    def __init__(
        self,
        current_latent: Any,
        nmask: Any,
        init_latent: Any,
        mask: Any,
        blended_latent: Any,
        denoiser: Any = None,
        sigma: Any = None,
    ) -> None:
        self.current_latent, self.nmask, self.init_latent, self.mask = current_latent, nmask, init_latent, mask
        self.blended_latent, self.denoiser, self.sigma = blended_latent, denoiser, sigma
        self.is_final_blend = denoiser is None


class Script:
    """Base of every script."""

    name: str | None = None
    section: str | None = None
    filename: str | None = None
    args_from: int = 0
    args_to: int = 0
    alwayson = is_txt2img = is_img2img = False
    tabname: str | None = None
    group: Any = None
    create_group = True
    infotext_fields: list[Any] | None = None
    paste_field_names: list[str] | None = None
    api_info: Any = None
    setup_for_ui_only = False
    controls: Any = None
    sorting_priority = 0

    def title(self) -> str:
        """What the user and the API call it."""
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> Any:
        """Make the controls; their values are the arguments of the hooks."""

    def show(self, is_img2img: bool) -> Any:
        """Whether it appears; AlwaysVisible makes its hooks run on every generation."""
        return True

    def elem_id(self, item_id: str) -> str:
        """Identifier of an element on the page."""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        tab = ("img2img_" if self.is_img2img else "txt2img_") if self.show(True) == self.show(False) else ""
        return f"script_{tab}{title}_{item_id}"


def _nothing(self: Script, p: Any, *args: Any, **kwargs: Any) -> None:
    """Nothing, unless a script says otherwise."""


for _hook in HOOKS:
    setattr(Script, _hook, _nothing)

ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])
scripts_data: list[ScriptClassData] = []
script_files: list[Path] = []
"""the stand-in's list of extension scripts; a host searches its folders"""
basedirs = [paths.script_path]


def basedir() -> str:
    """The folder of the extension whose script is being loaded; the host's own at any other time."""
    return basedirs[-1]


def load_scripts(permanent_path: bool = False) -> None:
    """Forget all scripts and callbacks and run the files again, each with its extension's folder on the path.

    Args:
        permanent_path: whether the folders stay on the path, as on Forge.
    """
    scripts_data.clear()
    script_callbacks.clear_callbacks()
    for path in script_files:
        root, before = str(path.parent.parent), list(sys.path)
        try:
            sys.path.insert(0, root)
            basedirs.append(root)
            module = script_loading.load_module(str(path))
            for item in vars(module).values():
                if inspect.isclass(item) and issubclass(item, Script):
                    scripts_data.append(ScriptClassData(item, str(path), root, module))
        except Exception:  # noqa: BLE001 - as the hosts do
            errors.report(f"Error loading script: {path.name}", exc_info=True)
        finally:
            basedirs.pop()
            if not permanent_path:
                sys.path[:] = before
    globals().update(scripts_txt2img=ScriptRunner(), scripts_img2img=ScriptRunner())


class ScriptRunner:
    """The scripts of one tab: their controls, and calls of their hooks."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.alwayson_scripts: list[Script] = []
        self.title_map: dict[str, Script] = {}
        self.infotext_fields: list[Any] = []
        self.paste_field_names: list[str] = []
        self.inputs: list[Any] = [None]

    def initialize_scripts(self, is_img2img: bool) -> None:
        """Make one object of every script class."""
        for data in scripts_data:
            try:
                script = data.script_class()
            except Exception:  # noqa: BLE001 - as the hosts do
                errors.report(f"Error # failed to initialize Script {data.module}: ", exc_info=True)
                continue
            script.filename, script.is_txt2img, script.is_img2img = data.path, not is_img2img, is_img2img
            script.tabname = "img2img" if is_img2img else "txt2img"
            visibility = script.show(is_img2img)
            if visibility:
                self.scripts.append(script)
                script.alwayson = visibility is AlwaysVisible
                (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)

    def setup_ui(self) -> list[Any]:
        """Let the scripts make their controls; returns all of them, after the drop-down of selectable scripts."""
        self.inputs = [gr.Dropdown(label="Script", choices=["None"], value="None", type="index")]
        for script in [*self.alwayson_scripts, *self.selectable_scripts]:
            script.args_from = script.args_to = len(self.inputs)
            try:
                self._create(script)
            except Exception:  # noqa: BLE001 - as the hosts do
                errors.report(f"Error creating UI for {script.name}: ", exc_info=True)
        return self.inputs

    def _create(self, script: Script) -> None:
        controls = script.ui(script.is_img2img)
        script.controls = controls
        self.title_map[script.title().lower()] = script
        if controls is None:
            return
        script.name = script.title().lower()
        for control in controls:
            control.custom_script_source = Path(str(script.filename)).name
        self.infotext_fields += script.infotext_fields or []
        self.paste_field_names += script.paste_field_names or []
        self.inputs += controls
        script.args_to = len(self.inputs)

    def script(self, title: str) -> Script | None:
        """A script by title, in any case."""
        return self.title_map.get(title.lower())

    def ordered_scripts(self, method_name: str) -> Iterable[Script]:
        """Always-visible scripts that have a hook of their own."""
        return [one for one in self.alwayson_scripts if getattr(type(one), method_name) is not _nothing]

    def call(self, hook: str, p: Any, *first: Any, **kwargs: Any) -> None:
        """Call a hook of every script with its part of the arguments; what fails is reported and passed over."""
        journal.hooks.append(hook)
        for script in self.ordered_scripts(hook):
            try:
                args = p.script_args[script.args_from : script.args_to]
                getattr(script, hook)(p, *first, *args, **kwargs)
            except Exception:  # noqa: BLE001 - as the hosts do
                errors.report(f"Error running {hook}: {script.filename}", exc_info=True)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        """Called with the pictures by name."""
        self.call("postprocess_batch", p, images=images, **kwargs)

    def setup_scrips(self, p: Any, *, is_ui: bool = True) -> None:
        """Called as soon as p has scripts and arguments; some scripts want it only from the page."""
        chosen = [one for one in self.alwayson_scripts if is_ui or not one.setup_for_ui_only]
        everybody, self.alwayson_scripts = self.alwayson_scripts, chosen
        try:
            self.call("setup", p)
        finally:
            self.alwayson_scripts = everybody


def _forward(hook: str) -> Any:
    def run(self: ScriptRunner, p: Any, *first: Any, **kwargs: Any) -> None:
        self.call(hook, p, *first, **kwargs)

    return run


for _hook in HOOKS:
    if _hook not in ("setup", "postprocess_batch"):
        setattr(ScriptRunner, _hook, _forward(_hook))

scripts_txt2img = ScriptRunner()
scripts_img2img = ScriptRunner()
