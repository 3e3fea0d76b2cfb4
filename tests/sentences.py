"""What a refusal looks like, whoever makes it."""

from __future__ import annotations


def one_sentence(text: str) -> bool:
    """Whether a text is a sentence that may stand in a log line, an infotext, a JSON answer and a page."""
    text.encode()  # a half of a character cannot be sent
    return text.endswith((".", "?")) and not any(ord(char) < 32 or char in "\x7f\u2028\u2029\u202e" for char in text)
