"""The controls of one tab, in the words and with the element names of the WebUIs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from hybridstitch_demo.standin import Host
from hybridstitch_demo.words import DRAWINGS, GROUNDS

EXAMPLES = (
    "frog and red apple on blue",
    "panda and tulip on sunset",
    "rocket and star on night",
    "cat and umbrella and ball on checks",
)
EDGE = {"minimum": 64, "maximum": 512, "step": 16, "value": 128}
OLD = gr.__version__.startswith("3.")


def js(code: str) -> dict[str, str]:
    """An event's JavaScript under the name that this gradio gives it."""
    return {"_js" if OLD else "js": code}


@dataclass
class Tab:
    """A tab's controls.

    Args:
        kind: "txt2img" or "img2img".
        request: field of p → control, without the scripts'.
        scripts: the controls of all scripts, the drop-down of selectable ones first.
        fields: (control, infotext key or function of the parsed infotext): what pasting sets.
    """

    kind: str
    request: dict[str, Any] = field(default_factory=dict)
    scripts: list[Any] = field(default_factory=list)
    fields: list[tuple[Any, Any]] = field(default_factory=list)
    task: Any = None
    generate: Any = None
    paste: Any = None
    gallery: Any = None
    info: Any = None
    log: Any = None
    shown: Any = None

    def id(self, name: str) -> str:
        """Name of an element of this tab."""
        return f"{self.kind}_{name}"


def top_row(tab: Tab) -> None:
    """Prompts, Generate, and examples."""
    with gr.Row(elem_id=tab.id("toprow"), elem_classes=["toprow"]):
        with gr.Column(scale=6):
            tab.request["prompt"] = gr.Textbox(
                "",
                label="Prompt",
                lines=2,
                elem_id=tab.id("prompt"),
                placeholder="Prompt\n(drawings and a ground, or paste an infotext and press the arrow)",
                show_label=False,
                elem_classes=["prompt"],
            )
            tab.request["negative_prompt"] = gr.Textbox(
                "",
                label="Negative prompt",
                lines=1,
                elem_id=tab.id("neg_prompt"),
                placeholder="Negative prompt",
                show_label=False,
                elem_classes=["prompt"],
            )
        with gr.Column(scale=1, min_width=180):
            with gr.Row(elem_classes=["generate-box"]):
                interrupt = gr.Button("Interrupt", elem_id=tab.id("interrupt"), elem_classes=["generate-box-interrupt"])
                tab.generate = gr.Button("Generate", elem_id=tab.id("generate"), variant="primary")
            tab.paste = gr.Button("↙️ Read the infotext in the prompt", elem_id=tab.id("paste"), size="sm")
    interrupt.click(**js("() => webuiPage.interrupt()"), fn=None, inputs=[], outputs=[])
    with gr.Row(elem_classes=["examples"]):
        for number, example in enumerate(EXAMPLES):
            button = gr.Button(example, size="sm", elem_id=tab.id(f"example_{number}"))
            button.click(lambda text=example: text, inputs=[], outputs=[tab.request["prompt"]], **quiet())
    gr.HTML(_drawable(), elem_classes=["drawable"])


def _drawable() -> str:
    """What the pair knows, for who wants to write a prompt of their own."""
    drawings, grounds = ", ".join(DRAWINGS), ", ".join(GROUNDS)
    return (
        "<details><summary>What this small pair of models can draw</summary>"
        f"Up to three of {drawings}; on {grounds}. Other words change nothing.</details>"
    )


def quiet() -> dict[str, Any]:
    """How small events are made: at once, without a spinner, and not part of gradio's own API."""
    return {"show_progress": "hidden", "queue": False, "api_name": False}


def sampling(tab: Tab, host: Host) -> None:
    """Sampler, schedule, steps, size, batch, guidance and seed."""
    samplers = host.module("modules.sd_samplers").visible_sampler_names()
    schedulers = [one.label for one in host.module("modules.sd_schedulers").schedulers]
    request = tab.request
    with gr.Row():
        request["sampler_name"] = gr.Dropdown(
            samplers, value="Euler", label="Sampling method", elem_id=tab.id("sampling")
        )
        plain = "Automatic" if host.name == "a1111" else "Simple"
        request["scheduler"] = gr.Dropdown(schedulers, value=plain, label="Schedule type", elem_id=tab.id("scheduler"))
    slider = gr.Slider
    request["steps"] = slider(1, 150, value=28, step=1, label="Sampling steps", elem_id=tab.id("steps"))
    with gr.Row():
        with gr.Column():
            request["width"] = slider(**EDGE, label="Width", elem_id=tab.id("width"))
            request["height"] = slider(**EDGE, label="Height", elem_id=tab.id("height"))
        with gr.Column():
            request["n_iter"] = slider(1, 16, value=1, step=1, label="Batch count", elem_id=tab.id("batch_count"))
            request["batch_size"] = slider(1, 8, value=1, step=1, label="Batch size", elem_id=tab.id("batch_size"))
    request["cfg_scale"] = slider(1, 30, value=3, step=0.5, label="CFG Scale", elem_id=tab.id("cfg_scale"))
    if tab.kind == "img2img":
        request["denoising_strength"] = _strength(tab, 0.75)
    _seed_row(tab)
    if tab.kind == "txt2img":
        _hires(tab, host)


def _strength(tab: Tab, value: float) -> Any:
    identity = tab.id("denoising_strength")
    return gr.Slider(0, 1, value=value, step=0.01, label="Denoising strength", elem_id=identity)


def _hires(tab: Tab, host: Host) -> None:
    """A second pass over the enlarged latent."""
    request, slider = tab.request, gr.Slider
    with gr.Accordion("Hires. fix", open=False, elem_id=tab.id("hr")):
        request["enable_hr"] = gr.Checkbox(
            False, label="Generate at twice the size in a second pass", elem_id=tab.id("hr-checkbox")
        )
        request["hr_second_pass_steps"] = slider(
            0, 150, value=0, step=1, label="Hires steps (0: as many as before)", elem_id=tab.id("hires_steps")
        )
        request["denoising_strength"] = _strength(tab, 0.6)
        if host.name != "a1111":
            request["hr_cfg"] = slider(1, 30, value=3, step=0.5, label="Hires CFG Scale", elem_id=tab.id("hr_cfg"))


def _seed_row(tab: Tab) -> None:
    with gr.Row(elem_classes=["seed-row"]):
        seed = gr.Number(label="Seed", value=-1, precision=0, elem_id=tab.id("seed"))
        dice = gr.Button("🎲", elem_id=tab.id("random_seed"), elem_classes=["tool"], size="sm")
        reuse = gr.Button("♻️", elem_id=tab.id("reuse_seed"), elem_classes=["tool"], size="sm")
    tab.request["seed"] = seed
    dice.click(lambda: -1, inputs=[], outputs=[seed], **quiet())
    tab.shown = gr.State([])  # infotexts of the pictures in the gallery
    reuse.click(_seed_of, inputs=[tab.shown], outputs=[seed], **quiet())


def _seed_of(infotexts: list[str]) -> Any:
    from modules import infotext_utils

    return int(infotext_utils.parse_generation_parameters(infotexts[0])["Seed"]) if infotexts else -1


def sources(tab: Tab) -> None:
    """img2img's picture, and what of it to paint."""
    tab.request["init_images"] = gr.Image(
        label="Image for img2img", type="pil", elem_id="img2img_image", height=240, **_upload()
    )
    with gr.Accordion("Inpaint upload", open=False, elem_id="img2img_inpaint"):
        tab.request["mask"] = gr.Image(
            label="Mask, white where to paint", type="pil", elem_id="img_inpaint_mask", height=160, **_upload()
        )


def _upload() -> dict[str, Any]:
    return {"source": "upload"} if OLD else {"sources": ["upload"]}


def results(tab: Tab) -> None:
    """Gallery, progress and what was generated."""
    with gr.Column(elem_id=tab.id("results")):
        with gr.Column(elem_id=tab.id("gallery_container")):
            tab.gallery = gr.Gallery(
                label="Output", show_label=False, elem_id=tab.id("gallery"), columns=4, height=420, preview=True
            )
        tab.info = gr.HTML(elem_id=f"html_info_{tab.kind}", elem_classes=["infotext"])
        tab.log = gr.HTML(elem_id=f"html_log_{tab.kind}", elem_classes=["html-log"])


def paste_fields(tab: Tab, script_fields: list[tuple[Any, Any]]) -> None:
    """Which control takes what from an infotext."""
    keys = {
        "prompt": "Prompt",
        "negative_prompt": "Negative prompt",
        "sampler_name": "Sampler",
        "scheduler": "Schedule type",
        "steps": "Steps",
        "width": "Size-1",
        "height": "Size-2",
        "cfg_scale": "CFG scale",
        "seed": "Seed",
        "denoising_strength": "Denoising strength",
        "hr_second_pass_steps": "Hires steps",
        "enable_hr": _had_hires,
    }
    own = [(control, keys[name]) for name, control in tab.request.items() if name in keys]
    tab.fields = [*own, *script_fields]


def _had_hires(params: dict[str, Any]) -> bool:
    return "Hires upscale" in params


def pasted(tab: Tab) -> Callable[[str], list[Any]]:
    """Infotext → a change for each of the tab's fields."""
    from modules import infotext_utils

    def paste(infotext: str) -> list[Any]:
        params = infotext_utils.parse_generation_parameters(infotext or "")
        values = infotext_utils.values_for(tab.fields, params)
        return [gr.update() if value is None else gr.update(value=value) for value in values]

    return paste
