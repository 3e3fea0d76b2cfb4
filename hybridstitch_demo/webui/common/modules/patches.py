"""The hosts' helper for replacing functions of modules and classes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

originals: dict[Any, dict[tuple[Any, str], Any]] = defaultdict(dict)


def patch(key: Any, obj: Any, field: str, replacement: Any) -> Any:
    """Replace `obj.field` in the name of `key`; a second time without `undo` is an error."""
    if (obj, field) in originals[key]:
        raise RuntimeError(f"patch for {field} is already applied")
    originals[key][obj, field] = getattr(obj, field)
    setattr(obj, field, replacement)
    return originals[key][obj, field]


def undo(key: Any, obj: Any, field: str) -> None:
    """Take `key`'s replacement back."""
    if (obj, field) not in originals[key]:
        raise RuntimeError(f"there is no patch for {field} to undo")
    setattr(obj, field, originals[key].pop((obj, field)))


def original(key: Any, obj: Any, field: str) -> Any:
    """What `key` replaced, or None."""
    return originals[key].get((obj, field))
