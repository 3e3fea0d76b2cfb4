"""Replace one attribute of one instance, and undo it without a trace.

Never a class: other instances of it may belong to somebody else. A replacement is marked, so that one left behind by a
generation that died, or by an earlier load of the extension, can be recognised and stripped.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

ORIGINAL = "hybridstitch_original"
WAS_OWN = "hybridstitch_was_own_attribute"
ACTIVE = "hybridstitch_active"

Function = Callable[..., Any]


def patch_instance(owner: object, name: str, make: Callable[[Function], Function]) -> Callable[[], None]:
    """Replace `owner.name` by `make(the function there now)`; return what undoes it.

    Where somebody else has wrapped the replacement in the meantime it cannot be taken out; undoing then makes it hand
    every call on to the original. What undoes it does not keep the owner alive: a generation may die before it is used.
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
    setattr(replacement, ACTIVE, active)
    setattr(owner, name, replacement)

    held: weakref.ref[object] = weakref.ref(owner)
    placed: weakref.ref[Function] = weakref.ref(replacement)

    def undo() -> None:
        there, ours = held(), placed()
        if ours is None:
            return
        getattr(ours, ACTIVE).clear()
        if there is not None and vars(there).get(name) is ours:
            _restore(there, name, vars(there)[name])

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
