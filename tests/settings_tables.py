"""What the settings promise, written down a second time on purpose: tests compare it with the code."""

from __future__ import annotations

import math

from lib_hybridstitch.settings import specs

SPECS = specs()

# The public order of positional values: a new name goes to the end, nothing else ever changes.
ORDER = [
    "enabled", "small_checkpoint", "large_checkpoint", "preset", "method", "switch_step", "handoff_step", "mask_ratio",
    "mask_threshold", "score", "background", "extrapolate", "small_scope", "refresh_every", "kv_cache", "hires",
    "show_mask", "small_device", "adaptive", "full_share", "target_speedup",
    "hold_guidance",
]  # fmt: skip
GOVERNED = [
    "method", "switch_step", "handoff_step", "mask_ratio", "mask_threshold", "score", "background", "extrapolate",
    "small_scope", "refresh_every", "adaptive", "full_share", "hold_guidance",
]  # fmt: skip

BOUNDS: dict[str, tuple[float, float]] = {
    "switch_step": (0, 150),
    "handoff_step": (0, 150),
    "mask_ratio": (0, 1),
    "mask_threshold": (0, 100),
    "extrapolate": (0, 1),
    "refresh_every": (0, 50),
    "full_share": (0, 1),
    "target_speedup": (0, 4),
    "hold_guidance": (0, 150),
}
CHOICES = {
    "preset": ("Paper", "Quality", "Balanced", "Fast", "Custom"),
    "method": ("HybridStitch", "T-Stitch", "SRDiffusion", "RAS"),
    "score": ("disagreement", "change", "detail"),
    "background": ("small", "reuse"),
    "small_scope": ("all", "outside"),
    "kv_cache": ("full", "fp8", "off"),
    "hires": ("first", "second", "both"),
    "small_device": ("keep", "park", "second"),
}
BOOLS = ("enabled", "show_mask", "adaptive")
TEXTS = ("small_checkpoint", "large_checkpoint")
NOT_RECORDED = ("enabled", "show_mask", "small_device")
WRONG_TYPES: dict[type, list[object]] = {
    bool: [1, 0, 1.0, "true", "True", None],
    int: [True, False, "1", None, [0], {}, 1j, math.nan, math.inf, -math.inf, 2.5],
    float: [True, False, "0.3", "1", None, [0], {}, 1j, math.nan, math.inf, -math.inf],
    str: [None, 1, 0.5, True, ["a"], {}],
}
