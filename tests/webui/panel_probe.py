"""Started inside an environment with a real gradio: builds the panel, uses it, and prints what came of it as JSON.

The WebUI's own widgets are played as its two flavours have them: a class of accordion beside gradio 3, a function
beside gradio 4.
"""

from __future__ import annotations

import asyncio
import json
import sys
import types
from typing import Any

import gradio as gr

from lib_hybridstitch.errors import CheckpointError
from lib_hybridstitch.settings import StitchSettings, method_specs, specs

OLD = gr.__version__.startswith("3.")
if not OLD:
    import gradio.component_meta

    gradio.component_meta.create_or_modify_pyi = lambda *_: (
        None
    )  # it writes a file beside this one, as WebUIs prevent too


class Host:
    """As much of a WebUI as the panel asks for."""

    def __init__(self, problem: str = "") -> None:
        self.trouble, self.titles = problem, ["large.safetensors [abc]", "medium.safetensors"]

    def problem(self) -> str:
        return self.trouble

    def checkpoint_titles(self) -> list[str]:
        if self.trouble:
            raise RuntimeError("not to be asked in a WebUI that cannot be used")
        return list(self.titles)

    def refresh_checkpoints(self) -> None:
        self.titles.append("new.safetensors")


class Accordion(gr.Checkbox):
    """A hidden checkbox with a fold."""

    def __init__(self, value: bool, label: str, elem_id: str) -> None:
        super().__init__(value, label=label, elem_id=f"{elem_id}-checkbox", visible=False)
        self.accordion = gr.Accordion(label, open=value, elem_id=elem_id)

    def __enter__(self) -> Accordion:
        self.accordion.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.accordion.__exit__(*error)

    def get_block_name(self) -> str:
        return "checkbox"


class ToolButton(gr.Button):
    """A small button with a tooltip."""

    def __init__(self, value: str, elem_id: str, tooltip: str) -> None:
        super().__init__(value, elem_id=elem_id)
        self.webui_tooltip = tooltip

    def get_block_name(self) -> str:
        return "button"


class FormRow(gr.Row):
    """A row."""

    def get_block_name(self) -> str:
        return "row"


def play_host_modules() -> None:
    """Put `modules.ui_components` where the panel imports it from."""
    widgets = types.ModuleType("modules.ui_components")
    accordion = Accordion if OLD else (lambda value=None, **given: Accordion(value=value, **given))
    widgets.__dict__.update(InputAccordion=accordion, ToolButton=ToolButton, FormRow=FormRow)
    sys.modules["modules"] = types.ModuleType("modules")
    sys.modules["modules.ui_components"] = widgets


def describe(control: Any) -> dict[str, Any]:
    """What a WebUI reads of a control."""
    shown = {field: getattr(control, field, None) for field in ("label", "info", "value", "minimum", "maximum", "step")}
    choices = [choice[1] if isinstance(choice, tuple) else choice for choice in getattr(control, "choices", None) or []]
    visible = getattr(control, "visible", True)
    return {"kind": type(control).__name__, "elem_id": control.elem_id, "visible": visible, "choices": choices, **shown}


def html_of(demo: gr.Blocks) -> list[str]:
    """Every piece of HTML on the page."""
    return [block.value for block in demo.blocks.values() if isinstance(block, gr.HTML)]


def classes_of(demo: gr.Blocks) -> dict[str, int]:
    """How often each of our style classes is on a container of the page."""
    found = [name for block in demo.blocks.values() for name in getattr(block, "elem_classes", None) or []]
    return {name: found.count(name) for name in sorted(set(found)) if name.startswith("hybridstitch-")}


def listens(dependency: dict[str, Any], control: Any, event: str) -> bool:
    """Whether an entry of the page's configuration belongs to this event."""
    if OLD:
        return dependency["targets"] == [control._id] and dependency["trigger"] == event
    return (control._id, event) in dependency["targets"]


def heard(dependency: dict[str, Any], named: dict[str, Any]) -> str:
    """Setting and event of an entry of the page's configuration, or ""."""
    for name, control in named.items():
        for event in ("input", "change", "select", "submit", "release", "blur"):
            if listens(dependency, control, event):
                return f"{name} {event}"
    return ""


def dependency_of(demo: gr.Blocks, control: Any, event: str) -> dict[str, Any]:
    """The one entry of the page's configuration for this event."""
    (found,) = (item for item in demo.get_config_file()["dependencies"] if listens(item, control, event))
    return dict(found)


def use(demo: gr.Blocks, control: Any, event: str, *values: Any) -> list[Any]:
    """What the page gets back when a user's deed on `control` hands `values` over."""
    dependencies = demo.get_config_file()["dependencies"]
    (at,) = (i for i, item in enumerate(dependencies) if listens(item, control, event))
    if OLD:
        done = asyncio.run(demo.process_api(fn_index=at, inputs=list(values), state={}))
    else:
        from gradio.state_holder import SessionState

        done = asyncio.run(demo.process_api(demo.fns[at], inputs=list(values), state=SessionState(demo)))
    return list(done["data"])


def release_twice() -> Any:
    """A release that works once, and then says why it does not."""
    said = iter(["Freed 5.1 GB <b>."])

    def release() -> str:
        for sentence in said:
            return sentence
        raise CheckpointError("Nothing is loaded.")

    return release


class Page:
    """The page's small checkpoint, which holds where a panel names none."""

    small = ""

    def resolve(self, args: Any) -> StitchSettings:
        """Script arguments as the extension reads them."""
        made = StitchSettings.from_args(args)
        missing = made.enabled and not made.small_checkpoint
        return made.with_changes({"small_checkpoint": self.small}) if missing else made


def plainly(changes: list[Any]) -> list[Any]:
    """Values as they are; of a change without a value what it changes, in both versions' spelling."""
    return [_plain(change) for change in changes]


def _plain(change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    told = {key: value for key, value in change.items() if key in ("visible", "value")}
    if "choices" in change:  # gradio 4: pairs
        told["choices"] = [one[-1] if isinstance(one, (list, tuple)) else one for one in change["choices"]]
    return told


class Uses:
    """What the controls of a panel do: each `use` is a user's deed, answered by what it changes, by setting."""

    def __init__(self, demo: gr.Blocks, controls: dict[str, Any], show: Any) -> None:
        self.demo, self.controls, self.show = demo, controls, show

    def deed(self, name: str, event: str = "input", **values: Any) -> dict[str, Any]:
        """Use a control while the others show the defaults but for `values`."""
        control = self.show if name == "show" else self.controls[name]
        shown = {**StitchSettings().to_dict(), **values}
        dependency = dependency_of(self.demo, control, event)
        named = {made._id: setting for setting, made in self.controls.items()}
        given = [shown[named[at]] for at in dependency["inputs"]]
        changed = plainly(use(self.demo, control, event, *given))
        return dict(zip([named[at] for at in dependency["outputs"]], changed, strict=True))


def main() -> None:
    """Build both tabs and the API's extra copy, and try every event."""
    play_host_modules()
    from lib_hybridstitch.webui import panel

    host, release, page = Host(), release_twice(), Page()
    ids = {tab: (lambda name, tab=tab: f"script_{tab}_hybridstitch_{name}") for tab in ("txt2img", "img2img")}
    with gr.Blocks() as demo:
        built = {tab: panel.build(host, tab == "img2img", ids[tab], page.resolve, release) for tab in ids}
    saved = StitchSettings(small_checkpoint="gone.safetensors")
    with gr.Blocks():
        again = panel.build(host, False, ids["txt2img"], lambda _: saved, release)
    with gr.Blocks() as broken:
        panel.build(Host("This WebUI lacks <modules.x>."), False, ids["txt2img"], page.resolve, release)

    made = built["txt2img"]
    named = dict(zip(specs(), made.controls, strict=True))
    blocks = {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}
    refresh, button, show = (blocks[ids["txt2img"](name)] for name in ("refresh", "release", "show"))
    uses = Uses(demo, named, show)
    dependencies = demo.get_config_file()["dependencies"]
    report = {
        "gradio": gr.__version__,
        "controls": {tab: [describe(control) for control in panels.controls] for tab, panels in built.items()},
        "again": [describe(control) for control in again.controls],
        "ids": [block.elem_id for block in demo.blocks.values() if getattr(block, "elem_id", None)],
        "pasted": [[control.label, paste.name] for control, paste in made.infotext_fields],
        "carried": [paste in built["img2img"].paste_field_names for _, paste in made.infotext_fields],
        "texts": panel.texts(),
        "html": html_of(demo),
        "broken": html_of(broken),
        "classes": classes_of(demo),
        "unsaved": [getattr(block, "do_not_save_to_config", False) for block in (refresh, button, show)],
        "refreshed": plainly(use(demo, refresh, "click")),
        "released": [use(demo, button, "click"), use(demo, button, "click")],
        "heard": sorted({heard(dependency, named) for dependency in dependencies} - {""}),
        **deeds(uses, page),
    }
    json.dump(report, sys.stdout)


def deeds(uses: Uses, page: Page) -> dict[str, Any]:
    """What happens when the controls are used."""
    small = {"small_checkpoint": "medium.safetensors"}
    fast = StitchSettings.from_dict({"preset": "Fast", **small}).to_dict()
    methods = specs()["method"].choices
    found: dict[str, Any] = {
        "shown": {name: uses.deed("method", "change", method=name, **small) for name in methods},
        "cleared": uses.deed("small_checkpoint", "change"),
        "shown_by_page": [],
        "methods": {name: uses.deed("method", method=name, preset="Fast", plan="8L", **small) for name in methods},
        "custom_method": uses.deed("method", method="HybridStitch", preset="Custom", **small),
        "presets": {name: uses.deed("preset", preset=name, **small) for name in ("Quality", "Fast", "Paper", "Custom")},
        "preset_set": uses.deed("preset", **fast),
        "target": uses.deed("target_speedup", target_speedup=2, plan="8L"),
        "moved": {name: uses.deed(name, **{**fast, name: 0.123}) for name in method_specs()},
        "named": {name: uses.deed(name, **{**fast, "preset": "Custom"}) for name in method_specs()},
        "chosen_small": uses.deed("small_checkpoint", **{**fast, "preset": "Custom"}),
        "emptied": uses.deed("switch_step", **{**fast, "switch_step": None}),
    }
    for page.small in ("", "medium.safetensors"):
        found["shown_by_page"].append(uses.deed("show", "click"))
    return found


if __name__ == "__main__":
    main()
