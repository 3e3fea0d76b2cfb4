"""The place of one loaded model, kept between runs for as long as it is the one that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Releasable(Protocol):
    """A model that can give its memory back."""

    def release(self) -> None:
        """Give its memory back; it is not used again."""
        ...


Model = TypeVar("Model", bound=Releasable)


class ModelSlot(Generic[Model]):
    """Keeps one model by a key. A release that is asked for while the model is in use happens when its run ends.

    Generations come one at a time, but the release button, an API call or a model change may come from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._key: Hashable = None
        self._model: Model | None = None
        self._in_use = False
        self._release_wanted = False

    def take(self, key: Hashable, load: Callable[[], Model]) -> Model:
        """Return the model of `key`, loading it when another one, or none, is here; it is in use from now on."""
        with self._lock:
            if self._model is None or self._key != key:
                self._drop()
                self._model, self._key = load(), key
            self._in_use = True
            return self._model

    def holds(self, key: Hashable) -> bool:
        """Whether the model of `key` is loaded."""
        with self._lock:
            return self._model is not None and self._key == key

    def free(self) -> None:
        """The run that used the model is over."""
        with self._lock:
            self._in_use = False
            if self._release_wanted:
                self._drop()

    def release(self) -> bool:
        """Give the model's memory back, now or when its run ends; return whether there was a model."""
        with self._lock:
            had = self._model is not None
            if self._in_use:
                self._release_wanted = had
            else:
                self._drop()
            return had

    def _drop(self) -> None:
        model, self._model, self._key, self._release_wanted = self._model, None, None, False
        if model is not None:
            model.release()
