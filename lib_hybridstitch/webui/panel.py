"""The panel in the txt2img and img2img tabs, made from the settings' own descriptions.

`build` runs inside `Script.ui()`. A WebUI calls that several times, and may put saved values into the controls after
it, so nothing here remembers anything: what the controls do follows from the values they hand over.

A method's controls that are not in force are hidden by `visible`. Both versions of gradio keep a hidden control on the
page, so that the page's scripts can read all settings at any time.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.fields import FieldSpec
from lib_hybridstitch.settings import CURRENT, StitchSettings, common_specs, method_specs, specs
from lib_hybridstitch.webui.infotext import Paste
from lib_hybridstitch.webui.rules import Resolve, Rules
from lib_hybridstitch.webui.texts import NOTES, PAGE

if TYPE_CHECKING:
    from lib_hybridstitch.hosts.base import Host

TITLE = "HybridStitch"
ADVANCED = "Advanced"
RELEASE = "Release the small model"
REFRESH = "Read the checkpoint folders again"
REFRESH_SYMBOL = "\U0001f504"
FIRST_CHOICE = {"small_checkpoint": "", "large_checkpoint": CURRENT}
"""The settings that name a checkpoint, and what stands above the host's list in them."""

PROPER_NAMES = frozenset({"HybridStitch", "T-Stitch", "SRDiffusion", "RAS", "fp8"})
"""Choices that no language translates."""

QUIET = {"show_progress": "hidden", "queue": False, "api_name": False}
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
    return tuple(dict.fromkeys([*found, *PAGE.values(), *NOTES]))


def build(
    host: Host, is_img2img: bool, elem_id: Callable[[str], str], resolve: Resolve, release: Callable[[], str]
) -> Panel:
    """Make the panel inside the gradio context that is open.

    Args:
        host: its checkpoints are offered, and its problem is shown.
        is_img2img: the tab.
        elem_id: the Script's own, so that no id of the page exists twice.
        resolve: the extension's; what it makes of no arguments is what the controls show at first.
        release: gives the small model's memory back and returns a sentence about it.
    """
    from modules.ui_components import InputAccordion

    problem = host.problem()
    defaults = resolve([])
    maker = _Maker(elem_id, defaults, [] if problem else host.checkpoint_titles())
    accordion = InputAccordion(defaults.enabled, label=TITLE, elem_id=elem_id("enabled"))
    with accordion as enabled, gr.Column(elem_classes=["hybridstitch-panel"]):
        if problem:
            gr.HTML(f'<p class="hybridstitch-problem">{html.escape(problem)}</p>')
        made = {"enabled": enabled, **_checkpoint_row(maker, host), **_method_controls(maker)}
        gr.HTML(_live(elem_id, is_img2img), elem_id=elem_id("prediction"))
        made |= _advanced_controls(maker)
        _release_row(elem_id, release)
        show = gr.Button("", visible=False, elem_id=elem_id("show"))
    _follow(made, Rules(resolve), show)
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
        spec, method = specs()[name], self.defaults.chosen()
        shared: dict[str, Any] = {
            "value": self.defaults.to_dict()[name],
            "label": spec.label,
            "info": spec.help,
            "elem_id": self.elem_id(name),
            "visible": name in common_specs() or name in method.specs(),
        }
        if spec.choices and (name == "method" or name in method_specs()):
            return gr.Dropdown(choices=list(spec.choices), **shared)  # a Radio's `input` is not the user's alone
        if spec.choices:
            return gr.Radio(choices=list(spec.choices), **shared)
        if name in FIRST_CHOICE:
            return gr.Dropdown(choices=_choices(name, self.titles), allow_custom_value=True, **shared)
        if spec.kind is str:
            return gr.Textbox(lines=1, max_lines=1, **shared)
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


def _method_controls(maker: _Maker) -> dict[str, Any]:
    """Method, preset and target, then every method's own controls: those that are typed side by side."""
    made = {name: maker(name) for name in ("method", "preset", "target_speedup")}
    typed = [name for name, spec in method_specs().items() if spec.step and _too_fine(spec)]
    with gr.Row():
        made |= {name: maker(name) for name in typed}
    return made | {name: maker(name) for name in method_specs() if name not in typed}


def _live(elem_id: Callable[[str], str], is_img2img: bool) -> str:
    """The bar and the last run, which the page's own scripts fill.

    It carries what they need: the tab, where each control is, the step of each number, and what to say.
    """
    places = {name: elem_id(name) for name in specs()}
    places["enabled"] += "-checkbox"  # the accordion's id belongs to the fold, its tick is a checkbox beside it
    steps = {places[name]: spec.step for name, spec in specs().items() if spec.step}
    carried = {"controls": places, "steps": steps, "texts": dict(PAGE), "show": elem_id("show")}
    data = " ".join(f'data-{key}="{html.escape(json.dumps(value))}"' for key, value in carried.items())
    return (
        f'<div id="{html.escape(elem_id("live"))}" class="hybridstitch-live" '
        f'data-tab="{"img2img" if is_img2img else "txt2img"}" {data}>'
        f'<div id="{html.escape(elem_id("bar"))}" class="hybridstitch-plan"></div>'
        f'<section id="{html.escape(elem_id("run"))}" class="hybridstitch-run" hidden></section>'
        "</div>"
    )


def _advanced_controls(maker: _Maker) -> dict[str, Any]:
    """The Advanced fold: what is typed in a row of its own, the others two to a row."""
    names = [name for name, spec in specs().items() if spec.advanced]
    wide = [name for name in names if not specs()[name].choices and name not in FIRST_CHOICE]
    narrow = [name for name in names if name not in wide]
    made: dict[str, Any] = {}
    with gr.Accordion(ADVANCED, open=False, elem_id=maker.elem_id("advanced")):
        made |= {name: maker(name) for name in wide}
        for at in range(0, len(narrow), 2):
            with gr.Row():
                made |= {name: maker(name) for name in narrow[at : at + 2]}
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


def _follow(made: dict[str, Any], rules: Rules, show: Any) -> None:
    """Connect the controls.

    Values change by what the user does only (`input`), never by a value that was set for a control: nothing can go
    round in circles, and a pasted infotext arrives as it is. What is shown follows every change.

    Args:
        show: a hidden button, which the page's scripts press once the three that decide stand still: saved values and
            overtaken answers may have left other controls there.
    """
    own = [made[name] for name in method_specs()]
    heads = [made[name] for name in ("method", "preset", "small_checkpoint")]
    preset, target, plan = (made[name] for name in ("preset", "target_speedup", "plan"))
    show.do_not_save_to_config = True
    show.click(rules.show, inputs=heads, outputs=[preset, *own], **QUIET)
    for control in heads:
        control.change(rules.show, inputs=heads, outputs=[preset, *own], **QUIET)
    made["method"].input(rules.choose_method, inputs=heads, outputs=[plan, preset, *own], **QUIET)
    preset.input(rules.choose_preset, inputs=[*heads, *own], outputs=[plan, target, *own], **QUIET)
    target.input(lambda: "", inputs=[], outputs=[plan], **QUIET)
    made["small_checkpoint"].input(rules.preset_of, inputs=[*heads, *own], outputs=[preset], **QUIET)
    for name, control in zip(method_specs(), own, strict=True):
        control.input(partial(rules.move, name), inputs=[*heads, *own], outputs=[plan, target, preset], **QUIET)
