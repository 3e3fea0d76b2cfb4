"""HybridStitch for WebUI: two diffusion transformers of one family, stitched token by token."""

from __future__ import annotations

__version__ = "0.1.0"
