"""The errors a user may see. Each message is one sentence: what is wrong, where, and what to do."""

from __future__ import annotations


class HybridStitchError(Exception):
    """Base of every error raised on purpose by this project."""


class CheckpointError(HybridStitchError):
    """A model file cannot be used; the message names the file, the tensor and what was expected."""


class PairError(HybridStitchError):
    """Two networks cannot be stitched, because they do not share latents or text conditioning."""


class SettingsError(HybridStitchError):
    """A setting is unknown, of the wrong type or out of range.

    Attributes:
        key: name of the offending setting, or "" when the whole input is unusable.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class StitchError(HybridStitchError):
    """A run cannot be stitched any further; the caller lets the large model finish it."""
