"""What the settings promise, written down a second time on purpose: tests compare it with the code."""

from __future__ import annotations

import math

from lib_hybridstitch.settings import specs

SPECS = specs()

# The public order of positional values.
ORDER = [
    "enabled", "small_checkpoint", "method", "preset", "target_speedup", "plan", "large_checkpoint", "hires",
    "kv_cache", "small_device",
    "switch_step", "handoff_step", "mask_ratio", "score", "computed_share", "cfg_cache_from",
]  # fmt: skip
OWN = {
    "HybridStitch": ["switch_step", "handoff_step", "mask_ratio", "score", "computed_share"],
    "Step cache": ["computed_share", "cfg_cache_from"],
    "T-Stitch": ["switch_step"],
    "SRDiffusion": ["switch_step"],
    "RAS": ["switch_step", "mask_ratio"],
}
PRESETS_OF = {
    "HybridStitch": ["Quality", "Balanced", "Fast", "Paper"],
    "Step cache": ["Quality", "Balanced", "Fast"],
    "T-Stitch": [],
    "SRDiffusion": [],
    "RAS": [],
}
EVERY_PRESET = [(method, label) for method, labels in PRESETS_OF.items() for label in labels]
POINTS = ("switch_step", "handoff_step", "cfg_cache_from")
BOUNDS: dict[str, tuple[float, float]] = {
    "target_speedup": (0, 4),
    "switch_step": (0, 10_000),
    "handoff_step": (0, 10_000),
    "mask_ratio": (0, 1),
    "computed_share": (0, 1),
    "cfg_cache_from": (0, 10_000),
}
CHOICES = {
    "method": ("Auto", "HybridStitch", "Step cache", "T-Stitch", "SRDiffusion", "RAS"),
    "preset": ("Quality", "Balanced", "Fast", "Paper", "Custom"),
    "score": ("disagreement", "change"),
    "kv_cache": ("full", "fp8", "off"),
    "hires": ("first", "second", "both"),
    "small_device": ("keep", "park", "second"),
}
BOOLS = ("enabled",)
TEXTS = ("small_checkpoint", "large_checkpoint", "plan")
NOT_RECORDED = ("enabled", "small_device")
WRONG_TYPES: dict[type, list[object]] = {
    bool: [1, 0, 1.0, "true", "True", None],
    float: [True, False, "0.3", "1", None, [0], {}, 1j, math.nan, math.inf, -math.inf],
    str: [None, 1, 0.5, True, ["a"], {}],
}
