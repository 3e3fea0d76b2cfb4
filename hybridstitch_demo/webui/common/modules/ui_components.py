"""Controls of the hosts' own."""

from __future__ import annotations

from functools import wraps
from typing import Any

import gradio as gr


class InputAccordionImpl(gr.Checkbox):
    """An accordion that is a tick at the same time."""

    @wraps(gr.Checkbox.__init__)  # type: ignore[misc]  # gradio 4 tells the page what the signature names
    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        self.accordion_id = kwargs.get("elem_id") or "input-accordion-0"
        super().__init__(value=value, **{**kwargs, "elem_id": f"{self.accordion_id}-checkbox", "visible": False})
        if kwargs.get("render") is False:  # gradio 4 makes a component anew when its value is set
            return
        follow = f'(checked) => {{ inputAccordionChecked("{self.accordion_id}", checked); }}'
        self.change(fn=None, inputs=[self], **{"_js" if gr.__version__.startswith("3.") else "js": follow})
        self.accordion = gr.Accordion(
            label=kwargs.get("label", "Accordion"),
            open=bool(value),
            elem_id=self.accordion_id,
            elem_classes=["input-accordion"],
        )

    def extra(self) -> Any:
        """Where something can be put into the accordion's label."""
        return gr.Column(elem_id=f"{self.accordion_id}-extra")

    def get_block_name(self) -> str:
        """What gradio's page takes it for."""
        return "checkbox"

    def __enter__(self) -> InputAccordionImpl:
        self.accordion.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.accordion.__exit__(*error)


class ToolButton(gr.Button):
    """A small button with an emoji as text."""

    @wraps(gr.Button.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, tooltip: str | None = None, **kwargs: Any) -> None:
        self.webui_tooltip = tooltip
        super().__init__(*args, elem_classes=["tool", *kwargs.pop("elem_classes", [])], **kwargs)

    def get_block_name(self) -> str:
        """What gradio's page takes it for."""
        return "button"


InputAccordion: Any = InputAccordionImpl
"""A class on A1111, a function on Forge."""


class FormRow(gr.Row):
    """A row inside a form."""

    def get_block_name(self) -> str:
        """What gradio's page takes it for."""
        return "row"


class FormGroup(gr.Group):
    """A group inside a form."""

    def get_block_name(self) -> str:
        """What gradio's page takes it for."""
        return "group"
