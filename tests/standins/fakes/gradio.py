"""A gradio of which nothing is shown: components keep what they were made with, events are remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__version__ = "0.standin"
EVENTS = "change click input release select submit then success load upload clear blur focus".split()


class Component:
    """Any component: its arguments are attributes, its events are in `events`."""

    def __init__(self, value: Any = None, **kwargs: Any) -> None:
        self.value = value
        self.label, self.elem_id, self.visible = kwargs.pop("label", None), kwargs.pop("elem_id", None), True
        self.events: list[tuple[str, dict[str, Any]]] = []
        vars(self).update(kwargs)

    def __getattr__(self, name: str) -> Callable[..., Component]:
        if name not in EVENTS:
            raise AttributeError(name)

        def listen(fn: Any = None, **kwargs: Any) -> Component:
            self.events.append((name, {"fn": fn, **kwargs}))
            return self

        return listen

    def __enter__(self) -> Component:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Slider(Component):
    """A number between two others."""

    def __init__(self, minimum: float = 0, maximum: float = 100, value: Any = None, **kwargs: Any) -> None:
        super().__init__(minimum if value is None else value, minimum=minimum, maximum=maximum, **kwargs)


class Dropdown(Component):
    """One of several."""

    def __init__(self, choices: Any = None, value: Any = None, **kwargs: Any) -> None:
        super().__init__(value, choices=list(choices or ()), **kwargs)


class Blocks(Component):
    """A whole page, or a part that holds others."""


for _name in "Checkbox Textbox Number State HTML Markdown Button Image Label JSON File Gallery".split():
    globals()[_name] = type(_name, (Component,), {})
for _name in "Row Column Group Box Accordion Tab Tabs TabItem".split():
    globals()[_name] = type(_name, (Blocks,), {})
Radio = type("Radio", (Dropdown,), {})
CheckboxGroup = type("CheckboxGroup", (Dropdown,), {})


def update(**kwargs: Any) -> dict[str, Any]:
    """A change of a component."""
    return {**kwargs, "__type__": "update"}


def Warning(message: str) -> None:  # noqa: A001, N802 - gradio's own name
    """Show a message to the user."""


Info = Error = Warning
