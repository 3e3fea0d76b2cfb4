"""Count the most bytes that are alive at once while work is done, on tensors with memory or without (meta device)."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Alive(TorchDispatchMode):
    """While it is entered, every operation's results count until nobody holds them any more.

    What an operation allocates and frees inside itself is not seen.

    Args:
        known: tensors that are there anyway, and do not count.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: set[int] = set()
        self._known = {_memory(tensor)._cdata for tensor in known}

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        made = operation(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(_memory(tensor))
        return made

    def _count(self, memory: Any) -> None:
        key, size = memory._cdata, memory.nbytes()
        if key in self._known or key in self._counted:
            return
        self._counted.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(memory, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size


def _memory(tensor: Tensor) -> Any:
    return tensor.untyped_storage()
