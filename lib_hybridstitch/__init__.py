"""HybridStitch for WebUI: two diffusion transformers of one family, stitched token by token."""

__version__ = "0.1.0"
