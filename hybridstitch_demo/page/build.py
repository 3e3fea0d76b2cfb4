"""The page put together, and what its buttons do."""

from __future__ import annotations

import html
import itertools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from hybridstitch_demo.page import controls
from hybridstitch_demo.page.controls import Tab, js, quiet
from hybridstitch_demo.standin import KINDS, Host
from hybridstitch_demo.studio import PARAMETERS, Drawn, Studio, text_chunk

FONTS = ("system-ui", "sans-serif")  # of the machine; gradio's own would be loaded from elsewhere


def build(host: Host, studio: Studio, folder: Path) -> gr.Blocks:
    """Make the page.

    Args:
        host: its scripts are loaded.
        studio: draws.
        folder: where pictures are kept for the browser.
    """
    theme = gr.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
    with gr.Blocks(theme=theme, title="HybridStitch", analytics_enabled=False) as demo:
        host.callbacks.ui_settings_callback()
        _checkpoint(host)
        with gr.Tabs(elem_id="tabs"):
            made = {kind: _tab(host, kind) for kind in KINDS}
            _png_info(made)
    with demo:
        save = _saver(folder)
        for tab in made.values():
            _connect(tab, studio, save)
    for block in demo.blocks.values():  # classes that the WebUIs give every component
        block.elem_classes = [f"gradio-{block.get_block_name()}", *(getattr(block, "elem_classes", None) or [])]
    demo.queue(**({"concurrency_count": 8} if controls.OLD else {"default_concurrency_limit": 8}))
    return demo


def _checkpoint(host: Host) -> None:
    """The current checkpoint, above the tabs."""
    titles = host.sd_models.checkpoint_tiles(use_short=False)
    with gr.Row(elem_id="quicksettings"):
        box = gr.Dropdown(
            titles,
            value=host.opts.sd_model_checkpoint,
            label="Stable Diffusion checkpoint",
            elem_id="setting_sd_model_checkpoint",
        )
    box.input(host.choose, inputs=[box], outputs=[], **quiet())


def _tab(host: Host, kind: str) -> Tab:
    tab = Tab(kind)
    with gr.Tab(kind, id=kind, elem_id=f"tab_{kind}"):
        tab.task = gr.Textbox(visible=False)
        controls.top_row(tab)
        with gr.Row(elem_classes=["workspace"]):
            with gr.Column(scale=1, min_width=320, elem_id=tab.id("settings")):
                if kind == "img2img":
                    controls.sources(tab)
                controls.sampling(tab, host)
                runner = host.runner(kind)
                runner.initialize_scripts(kind == "img2img")
                with gr.Group(elem_id=tab.id("script_container")):
                    tab.scripts = runner.setup_ui()
            with gr.Column(scale=1, min_width=320):
                controls.results(tab)
    controls.paste_fields(tab, runner.infotext_fields)
    return tab


def _saver(folder: Path) -> Callable[[Drawn], list[str]]:
    """Pictures → files with their infotext, which the browser can load."""
    numbers = itertools.count()

    def save(drawn: Drawn) -> list[str]:
        names = []
        for picture, infotext in zip(drawn.pictures, drawn.infotexts):
            path = folder / f"{next(numbers):05}.png"
            picture.save(path, pnginfo=text_chunk(infotext))
            names.append(str(path))
        return names

    return save


def _connect(tab: Tab, studio: Studio, save: Callable[[Drawn], list[str]]) -> None:
    names = list(tab.request)
    count = len(names)

    def generate(task: str, *values: Any) -> tuple[Any, ...]:
        attributes = {name: value for name, value in zip(names, values) if value is not None}
        try:
            _prepare(tab.kind, attributes)
            drawn = studio.draw(tab.kind, attributes, values[count:], task)
        except Exception as error:  # noqa: BLE001 - as the WebUIs do: the sentence on the page, the trace in the log
            traceback.print_exc(file=sys.stderr)
            said = f"{type(error).__name__}: {error}"
            return gr.update(value=[]), "", f'<div class="error">{html.escape(said)}</div>', []
        info = drawn.infotexts[0] if drawn.infotexts else ""
        return save(drawn), _text(info), _text(drawn.comments, "comments"), drawn.infotexts

    tab.generate.click(
        generate,
        inputs=[tab.task, *tab.request.values(), *tab.scripts],
        outputs=[tab.gallery, tab.info, tab.log, tab.shown],
        show_progress="hidden",
        api_name=False,
        **js(f"(...values) => webuiPage.submit('{tab.kind}', values)"),
    )
    outputs = [control for control, _ in tab.fields]
    tab.paste.click(controls.pasted(tab), inputs=[tab.request["prompt"]], outputs=outputs, **quiet())
    tab.gallery.select(_selected, inputs=[tab.shown], outputs=[tab.info], **quiet())


def _prepare(kind: str, attributes: dict[str, Any]) -> None:
    """What the page's controls hand over, as a p wants it."""
    for name in ("steps", "width", "height", "n_iter", "batch_size", "seed", "hr_second_pass_steps"):
        if name in attributes:
            attributes[name] = int(attributes[name])
    if kind == "img2img":
        if not attributes.get("init_images"):
            raise ValueError("img2img needs a picture to begin with: drop one into Image for img2img")
        attributes["init_images"] = [attributes["init_images"]]


def _text(text: str, name: str = "") -> str:
    """Plain text as HTML, line by line."""
    shown = "<br>\n".join(html.escape(line) for line in text.split("\n"))
    return f'<p class="{name}">{shown}</p>' if name else f"<p>{shown}</p>"


def _selected(infotexts: list[str], chosen: gr.SelectData) -> str:
    return _text(infotexts[chosen.index]) if chosen.index < len(infotexts) else ""


def _png_info(tabs: dict[str, Tab]) -> None:
    """What a picture says of itself, and the way back into the tabs."""
    with gr.Tab("PNG Info", id="pnginfo", elem_id="tab_pnginfo"), gr.Row():
        with gr.Column():
            picture = gr.Image(label="Source", type="pil", elem_id="pnginfo_image", **_keeping())
        with gr.Column():
            shown = gr.HTML(elem_id="pnginfo_html")
            infotext = gr.State("")
            with gr.Row():
                for kind, tab in tabs.items():
                    button = gr.Button(f"Send to {kind}", elem_id=f"pnginfo_send_to_{kind}")
                    outputs = [control for control, _ in tab.fields]
                    switch = f"(...values) => {{ webuiPage.open('{kind}'); return values; }}"
                    button.click(controls.pasted(tab), inputs=[infotext], outputs=outputs, **quiet(), **js(switch))
    picture.change(_read, inputs=[picture], outputs=[shown, infotext], **quiet())


def _keeping() -> dict[str, Any]:
    """An upload that keeps what the file says of itself."""
    return {"source": "upload"} if controls.OLD else {"sources": ["upload"], "format": "png"}


def _read(picture: Image.Image | None) -> tuple[str, str]:
    infotext = str(picture.info.get(PARAMETERS, "")) if picture is not None else ""
    said = infotext or ("This picture says nothing about how it was made." if picture is not None else "")
    return _text(said), infotext
