"""Controls of the hosts' own."""

from __future__ import annotations

from typing import Any

import gradio as gr


class InputAccordionImpl(gr.Checkbox):
    """An accordion that is a tick at the same time."""

    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        self.accordion_id = kwargs.get("elem_id") or "input-accordion-0"
        super().__init__(value=value, **{**kwargs, "elem_id": f"{self.accordion_id}-checkbox", "visible": False})
        self.accordion = gr.Accordion(label=kwargs.get("label", "Accordion"), elem_id=self.accordion_id)

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

    def get_block_name(self) -> str:
        """What gradio's page takes it for."""
        return "button"


InputAccordion: Any = InputAccordionImpl
"""A class on A1111, a function on Forge."""


class FormRow(gr.Row):
    """A row inside a form."""


class FormGroup(gr.Group):
    """A group inside a form."""
