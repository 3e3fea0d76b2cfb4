"""Replace one attribute of one instance, and undo it without a trace.

Never a class: other instances of it may belong to somebody else. A replacement is marked, so that one left behind by a
generation that died, or by an earlier load of the extension, can be recognised and stripped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

ORIGINAL = "hybridstitch_original"
WAS_OWN = "hybridstitch_was_own_attribute"

Function = Callable[..., Any]


def patch_instance(owner: object, name: str, make: Callable[[Function], Function]) -> Callable[[], None]:
    """Replace `owner.name` by `make(the function there now)`; return what undoes it.

    Where somebody else has wrapped the replacement in the meantime it cannot be taken out; undoing then makes it hand
    every call on to the original.
    """
    original = getattr(owner, name)
    active: list[Function] = [make(original)]

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        for function in tuple(active):  # another thread may undo it between two looks
            return function(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(replacement, ORIGINAL, original)
    setattr(replacement, WAS_OWN, name in vars(owner))
    setattr(owner, name, replacement)

    def undo() -> None:
        active.clear()
        if vars(owner).get(name) is replacement:
            _restore(owner, name, replacement)

    return undo


def strip(owner: object, name: str) -> bool:
    """Remove every replacement of ours that lies open on `owner.name`; return whether there was one."""
    found = False
    while hasattr(vars(owner).get(name), ORIGINAL):
        _restore(owner, name, vars(owner)[name])
        found = True
    return found


def _restore(owner: object, name: str, replacement: Function) -> None:
    if getattr(replacement, WAS_OWN):
        setattr(owner, name, getattr(replacement, ORIGINAL))
    else:
        delattr(owner, name)
