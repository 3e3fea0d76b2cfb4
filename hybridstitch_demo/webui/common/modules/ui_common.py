"""Helpers of the hosts' own page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules.ui_components import ToolButton

refresh_symbol = "\U0001f504"


def create_refresh_button(
    refresh_component: Any, refresh_method: Callable[[], None], refreshed_args: Any, elem_id: str
) -> Any:
    """A button that reads a list again and gives it to a component."""
    components = refresh_component if isinstance(refresh_component, list) else [refresh_component]

    def refresh() -> Any:
        import gradio as gr

        refresh_method()
        args = refreshed_args() if callable(refreshed_args) else refreshed_args
        return [gr.update(**args) for _ in components] if len(components) > 1 else gr.update(**args)

    button = ToolButton(value=refresh_symbol, elem_id=elem_id)
    button.click(fn=refresh, inputs=[], outputs=components)
    return button
