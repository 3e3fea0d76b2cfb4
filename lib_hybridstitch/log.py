"""One logger for the whole extension."""

from __future__ import annotations

import logging


def get_logger(name: str = "") -> logging.Logger:
    """Return the project's logger, or its child `name`; handlers are left to the host."""
    return logging.getLogger("hybridstitch" + (f".{name}" if name else ""))
