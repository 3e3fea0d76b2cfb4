"""The panel in the txt2img and img2img tabs, made from the settings' own descriptions.

`build` runs inside `Script.ui()`. A WebUI calls that several times, and may put saved values into the controls after
it, so nothing here remembers anything: what the controls do follows from the values they hand over.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.fields import FieldSpec
from lib_hybridstitch.settings import CUSTOM, PRESETS, StitchSettings, specs
from lib_hybridstitch.webui.infotext import Paste
from lib_hybridstitch.webui.texts import PAGE

if TYPE_CHECKING:
    from lib_hybridstitch.hosts.base import Host

TITLE = "HybridStitch"
ADVANCED = "Advanced"
RELEASE = "Release the small model"
REFRESH = "Read the checkpoint folders again"
REFRESH_SYMBOL = "\U0001f504"
FIRST_CHOICE = {"small_checkpoint": "", "large_checkpoint": "current"}
"""The settings that name a checkpoint, and what stands above the host's list in them."""

PROPER_NAMES = frozenset({"HybridStitch", "T-Stitch", "SRDiffusion", "RAS", "fp8"})
"""Choices that no language translates."""

_MOST_POSITIONS = 1000  # what a slider can still be set to by hand


@dataclass(frozen=True)
class Panel:
    """What `Script.ui()` keeps and returns.

    Args:
        controls: one component per setting, in the order of the fields: the positional API.
        infotext_fields: (component, function of the parsed infotext) per setting.
        paste_field_names: the fields that "Send to" carries; the same functions.
    """

    controls: list[Any]
    infotext_fields: list[tuple[Any, Paste]]
    paste_field_names: list[Paste]


def texts() -> tuple[str, ...]:
    """Every text of the panel that a language may translate, as the page shows it."""
    shown = {name: spec for name, spec in specs().items() if name != "enabled"}
    found = [ADVANCED, RELEASE, REFRESH]
    for spec in shown.values():
        found += [spec.label, spec.help, *(choice for choice in spec.choices if choice not in PROPER_NAMES)]
    found += PAGE.values()
    return tuple(dict.fromkeys(found))


def governed() -> tuple[str, ...]:
    """The settings that a preset sets, in the order of the fields."""
    return tuple(name for name, spec in specs().items() if spec.governed)


def preset_values(preset: object) -> list[Any]:
    """What the governed controls become when `preset` is chosen, in their order; Custom leaves them."""
    if preset not in PRESETS:
        return [gr.update() for _ in governed()]
    return [PRESETS[str(preset)][name] for name in governed()]


def preset_of(*values: object) -> str:
    """The preset whose values the governed controls show, in their order, or Custom."""
    shown = dict(zip(governed(), values, strict=True))
    return next((name for name, row in PRESETS.items() if dict(row) == shown), CUSTOM)


def build(
    host: Host, is_img2img: bool, elem_id: Callable[[str], str], defaults: StitchSettings, release: Callable[[], str]
) -> Panel:
    """Make the panel inside the gradio context that is open.

    Args:
        host: its checkpoints are offered, and its problem is shown.
        is_img2img: the tab.
        elem_id: the Script's own, so that no id of the page exists twice.
        defaults: what the controls show at first.
        release: gives the small model's memory back and returns a sentence about it.
    """
    from modules.ui_components import InputAccordion

    problem = host.problem()
    maker = _Maker(elem_id, defaults, [] if problem else host.checkpoint_titles())
    accordion = InputAccordion(defaults.enabled, label=TITLE, elem_id=elem_id("enabled"))
    with accordion as enabled, gr.Column(elem_classes=["hybridstitch-panel"]):
        if problem:
            gr.HTML(f'<p class="hybridstitch-problem">{html.escape(problem)}</p>')
        made = {"enabled": enabled, **_checkpoint_row(maker, host), **_stage_controls(maker, is_img2img)}
        made |= _advanced_controls(maker)
        _release_row(elem_id, release)
    _follow_presets(made)
    controls = [made[name] for name in specs()]
    pastes = [Paste(name) for name in specs()]
    return Panel(controls, list(zip(controls, pastes, strict=True)), pastes)


@dataclass(frozen=True)
class _Maker:
    """Turns a setting's description into its control."""

    elem_id: Callable[[str], str]
    defaults: StitchSettings
    titles: Sequence[str]

    def __call__(self, name: str) -> Any:
        spec = specs()[name]
        shared: dict[str, Any] = {
            "value": getattr(self.defaults, name),
            "label": spec.label,
            "info": spec.help,
            "elem_id": self.elem_id(name),
        }
        if spec.kind is bool:
            return gr.Checkbox(**shared)
        if spec.choices:
            return gr.Radio(choices=list(spec.choices), **shared)
        if spec.kind is str:
            return gr.Dropdown(choices=_choices(name, self.titles), allow_custom_value=True, **shared)
        span = {"minimum": spec.minimum, "maximum": spec.maximum, "step": spec.step}
        return gr.Number(**span, **shared) if _too_fine(spec) else gr.Slider(**span, **shared)


def _too_fine(spec: FieldSpec) -> bool:
    """Whether a number has more positions than a slider can be set to: it is typed then."""
    if spec.minimum is None or spec.maximum is None or not spec.step:
        return True
    return (spec.maximum - spec.minimum) / spec.step > _MOST_POSITIONS


def _choices(name: str, titles: Sequence[str]) -> list[str]:
    """A checkpoint control's choices; a title that is not among them may still be typed or restored."""
    return list(dict.fromkeys([FIRST_CHOICE[name], *titles]))


def _checkpoint_row(maker: _Maker, host: Host) -> dict[str, Any]:
    """The small checkpoint, and the button that reads the folders again."""
    from modules.ui_components import FormRow, ToolButton

    name = "small_checkpoint"

    def refresh() -> Any:
        host.refresh_checkpoints()
        return gr.update(choices=_choices(name, host.checkpoint_titles()))

    with FormRow():
        control = maker(name)
        button = ToolButton(value=REFRESH_SYMBOL, elem_id=maker.elem_id("refresh"), tooltip=REFRESH)
    button.do_not_save_to_config = True
    button.click(refresh, inputs=[], outputs=[control], api_name=False)
    return {name: control}


def _stage_controls(maker: _Maker, is_img2img: bool) -> dict[str, Any]:
    """The preset, the numbers that matter most, what they will do, and what the last run did."""
    made = {"preset": maker("preset")}
    numbers = [name for name, spec in specs().items() if spec.step and not spec.advanced]
    typed = [name for name in numbers if _too_fine(specs()[name])]
    with gr.Row():
        made |= {name: maker(name) for name in typed}
    made |= {name: maker(name) for name in numbers if name not in typed}  # a slider's help needs the whole width
    gr.HTML(_live(maker.elem_id, is_img2img), elem_id=maker.elem_id("forecast"))
    return made


def _live(elem_id: Callable[[str], str], is_img2img: bool) -> str:
    """The stage bar and the last run, which the page's own scripts fill.

    It carries what they need: the tab, where each control is, the step of each number, and what to say.
    """
    places = {name: elem_id(name) for name in specs()}
    places["enabled"] += "-checkbox"  # the accordion's id belongs to the fold, its tick is a checkbox beside it
    steps = {places[name]: spec.step for name, spec in specs().items() if spec.step}
    carried = {"controls": places, "steps": steps, "texts": dict(PAGE)}
    data = " ".join(f'data-{key}="{html.escape(json.dumps(value))}"' for key, value in carried.items())
    return (
        f'<div id="{html.escape(elem_id("live"))}" class="hybridstitch-live" '
        f'data-tab="{"img2img" if is_img2img else "txt2img"}" {data}>'
        f'<div id="{html.escape(elem_id("plan"))}" class="hybridstitch-plan"></div>'
        f'<section id="{html.escape(elem_id("run"))}" class="hybridstitch-run" hidden></section>'
        "</div>"
    )


def _advanced_controls(maker: _Maker) -> dict[str, Any]:
    """The Advanced fold, two controls to a row."""
    names = [name for name, spec in specs().items() if spec.advanced]
    made: dict[str, Any] = {}
    with gr.Accordion(ADVANCED, open=False, elem_id=maker.elem_id("advanced")):
        for at in range(0, len(names), 2):
            with gr.Row():
                made |= {name: maker(name) for name in names[at : at + 2]}
    return made


def _release_row(elem_id: Callable[[str], str], release: Callable[[], str]) -> None:
    """The button that gives memory back, and what it says."""

    def press() -> str:
        try:
            said = release()
        except HybridStitchError as error:
            said = str(error)
        return f'<p class="hybridstitch-status">{html.escape(said)}</p>'

    with gr.Row(elem_classes=["hybridstitch-release"]):
        button = gr.Button(RELEASE, elem_id=elem_id("release"), size="sm")
        status = gr.HTML("", elem_id=elem_id("status"))
    for component in (button, status):
        component.do_not_save_to_config = True
    button.click(press, inputs=[], outputs=[status], show_progress="hidden", api_name=False)


def _follow_presets(made: dict[str, Any]) -> None:
    """Choosing a preset moves what it governs; moving that by hand names the preset it now is.

    Both listen to what the user does only, never to a value that was set for them: nothing can go round in circles,
    and a pasted infotext arrives as it is.
    """
    below = [made[name] for name in governed()]
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_name": False}
    made["preset"].input(preset_values, inputs=[made["preset"]], outputs=below, **quiet)
    for control in below:
        control.input(preset_of, inputs=below, outputs=[made["preset"]], **quiet)
