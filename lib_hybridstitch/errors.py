"""The errors a user may see. Each message is one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import reprlib
import unicodedata

LONGEST = 2000
"""Characters of a sentence that are shown; what a file or a library hands us may be far longer."""


def one_line(text: str) -> str:
    """`text` as it may stand in a log line, an infotext and a JSON answer, whatever names it quotes.

    Line breaks, control characters, marks that turn the direction of writing, and halves of characters, which files'
    names may hold and UTF-8 cannot, are spelled as escapes; beyond `LONGEST` characters it is cut.
    """
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(char if _is_plain(char) else char.encode("unicode_escape").decode() for char in shown)


def _is_plain(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def quoted(value: object) -> str:
    """Any value as a sentence shows it: its repr, shortened."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        return "a number of thousands of digits"


class HybridStitchError(Exception):
    """Base of every error raised on purpose by this project; its message is one line."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


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


class NotFiniteError(StitchError):
    """What a model computed holds NaN or infinity.

    Args:
        what: was computed.
        sigma: noise level of the evaluation. At 0 Forge and ersatzForge divide by it themselves, without us too.
    """

    def __init__(self, what: str, sigma: float) -> None:
        zero = "a schedule that comes to 0 before its end makes the WebUI itself divide by zero"
        why = "" if sigma else f"; {zero}: choose another schedule type, such as Simple"
        super().__init__(f"{what} at sigma {sigma:.3f} is not finite{why}")


def in_words(error: Exception) -> str:
    """What the user is told of an error: the sentence of one of ours, else its kind and what it says."""
    return str(error) if isinstance(error, HybridStitchError) else f"{type(error).__name__}: {error}"
