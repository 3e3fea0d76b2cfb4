"""What the page's own scripts say: every text in one place, handed to them with the panel.

A script asks for a text by its key, translates it with the page's localisation, and fills the braces in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lib_hybridstitch.plans.plan import Kind
from lib_hybridstitch.plans.safety import ANCESTRAL, BEGINNING, FEW_STEPS, FROM_PICTURE
from lib_hybridstitch.prediction.resolver import ADVICE


def _count(kind: Kind) -> str:
    share = " at {share} %" if kind is Kind.MASKED else ""
    return f"{{count}} {kind.word}{share}"


PAGE: Mapping[str, str] = MappingProxyType(
    {
        # kinds of steps, and how many there are of each
        **{f"kind_{kind.value}": kind.word for kind in Kind},
        **{f"count_{kind.value}": _count(kind) for kind in Kind},
        # the bar
        "about": "about {factor}x",
        "bar": "Plan of {steps} steps: {parts}; about {factor}x",
        "by_count": "{steps} steps, by counted operations",
        "by_times": "{steps} steps in {seconds} s instead of {large} s",
        "closed": "Nothing to show here: this WebUI asks for a password before its API (--api-auth).",
        "written": "The plan under Advanced is in force. Moving a control above replaces it.",
        **{f"reason_{word}": text for word, text in ADVICE.items()},
        # the last run
        "last_run": "Last run",
        "measured": "{measured}x (predicted {predicted}x)",
        "unmeasured": "predicted {predicted}x; no large step to measure it by",
        "pass": "Pass",
        "first_pass": "First pass",
        "hires_pass": "Hires pass",
        "timeline": "Time per step (ms). Below: share computed by the large model.",
        "step": "Step",
        "step_told": "Step {step} of {steps} · {kind} · σ {sigma} · {share} % by the large model · {ms} ms",
        # the mask over the picture
        "picture": "Picture",
        "picture_of": "Picture {number} of {count}",
        "dimmed": "Dimmed: not computed by the large model in this step.",
        # the comparison
        "compare": "Compare with the large model",
        "comparing": "The large model makes the same picture …",
        "compared": "From click to picture: {stitched} s with HybridStitch, {large} s with the large model.",
        "changed": "The settings have changed since this picture. Generate it again first.",
        "no_seed": "The seed of this picture is not known. Set one and generate it again first.",
        "cut_short": "This picture was interrupted. Generate it again first.",
        "busy": "Another picture is being made. Wait until it is done.",
        "interrupted": "The comparison was interrupted. Your picture is still here.",
        "failed": "The large model made no picture. Your picture is still here.",
        "large_model": "Large model",
        "wiper": "How much of the picture is HybridStitch's",
        "wiper_told": "{share} % HybridStitch, {rest} % large model",
    }
)
"""Key → English text. In braces stands what the script fills in."""

NOTES = (BEGINNING, FROM_PICTURE, FEW_STEPS, ANCESTRAL)
"""What `notes` of `/plan` may hold; the page shows each in its own language."""
