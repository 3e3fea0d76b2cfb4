"""Report an exception and go on, as the hosts do around every script hook and callback."""

from __future__ import annotations

import sys

from modules.standin import journal

exception_records: list[dict[str, str]] = []


def record_exception() -> None:
    """Remember the exception that is being handled; the host keeps the last five."""
    error = sys.exc_info()[1]
    if isinstance(error, Exception):
        journal.swallowed.append(error)
        exception_records.append({"exception": str(error)})
        del exception_records[:-5]


def report(message: str, *, exc_info: bool = False) -> None:
    """Print a message; with `exc_info`, the exception too."""
    record_exception()


def display(error: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Print an exception that happened during a task."""
    record_exception()
