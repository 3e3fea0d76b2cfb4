"""Parts that SD3's transformer and text encoders share."""

from __future__ import annotations

from lib_hybridstitch.mmdit.model import attention as attention
