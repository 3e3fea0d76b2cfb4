"""A script that notes which hooks were called with what; `shared.act(p)` is run before every sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.standins import Host, Result

SCRIPT = """
from __future__ import annotations
import gradio as gr
from modules import script_callbacks, scripts, shared
from modules.ui_components import InputAccordion

log = []

class Probe(scripts.Script):
    def title(self):
        return "Probe"
    def show(self, is_img2img):
        return scripts.AlwaysVisible
    def ui(self, is_img2img):
        with InputAccordion(False, label="Probe", elem_id=self.elem_id("on")) as enabled:
            text = gr.Textbox(value="plain", label="Text")
        self.infotext_fields = [(enabled, "Probe on"), (text, "Probe text")]
        return [enabled, text]
    def setup(self, p, *args):
        log.append(("setup", args))
    def process(self, p, enabled, text, *rest):
        log.append(("process", (enabled, text)))
        p.extra_generation_params["Probe text"] = text
    def process_before_every_sampling(self, p, *args, **kwargs):
        log.append(("before sampling", tuple(sorted(kwargs)), p.is_hr_pass))
        act = getattr(shared, "act", None)
        if act:
            act(p)
    def post_sample(self, p, ps, *args):
        log.append(("post_sample", p.is_hr_pass))
    def postprocess(self, p, processed, *args):
        p.extra_generation_params["Probe late"] = 1

script_callbacks.on_script_unloaded(lambda: log.append(("unloaded",)))
script_callbacks.on_ui_settings(lambda: shared.opts.add_option("probe", shared.OptionInfo(3, "Probe")))
"""

Install = Callable[..., Host]
everyone = pytest.mark.parametrize("name", ["a1111", "forge", "ersatz"])
forges = pytest.mark.parametrize("name", ["forge", "ersatz"])


def log_of(host: Host) -> list[Any]:
    """What the script noted since it was loaded."""
    (loaded,) = host.module("modules.script_loading").loaded_scripts.values()
    return loaded.log


def times(result: Result) -> list[float]:
    """σ of every call of the model; timesteps of samplers that think in them."""
    return [round(call.t / (1000 if not call.chunks else 1), 3) for call in result.calls]
