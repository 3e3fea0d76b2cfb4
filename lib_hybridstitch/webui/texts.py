"""What the page's own scripts say: every text in one place, handed to them with the panel.

A script asks for a text by its key, translates it with the page's localisation, and fills the braces in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PAGE: Mapping[str, str] = MappingProxyType(
    {
        # the stage bar
        "about": "about {factor}x",
        "large": "large",
        "hybrid": "hybrid",
        "small": "small",
        "count_large": "{count} large",
        "count_hybrid": "{count} hybrid at {share} %",
        "count_bare": "{count} hybrid without mask",
        "count_full": "{count} of them full",
        "count_held": "{count} of them full, {held} with guidance held",
        "count_small": "{count} small",
        "bar": "Forecast of {steps} steps: {parts}; about {factor}x",
        "count_steps": "{steps} steps",
        "by_count": "about {factor}x by counted operations",
        "by_times": "about {factor}x by measured times",
        "closed": "No forecast and no last run here: this WebUI asks for a password before its API (--api-auth).",
        # why nothing is gained, and what else is to be known before
        "reason_all_large": "Not faster: the large model computes every step. Lower the switch step.",
        "reason_all_large_late": "Not faster: the large model computes every step. Raise the switch step.",
        "reason_all_full": "Not faster: every hybrid step is a full pass. Raise Refresh every above 1.",
        "reason_all_placed": "Not faster: every hybrid step is a full pass. Lower Full share.",
        "reason_large_mask": "Not faster: with so large a mask a hybrid step is no cheaper. Lower the mask ratio.",
        "reason_few_cheap": "Not faster: too few steps are cheap. Lower the switch step or the mask ratio.",
        "reason_target": "The target speedup is out of reach: this is the fastest plan of its kind.",
        "reason_low_target": "Not faster: the target speedup asks for too little. Raise it.",
        "reason_choose_small": "Choose a small checkpoint: this plan needs one.",
        "reason_no_small": "This plan uses no small model.",
        # the last run
        "last_run": "Last run",
        "measured": "{measured}x measured, {foreseen}x foreseen",
        "foreseen": "{foreseen}x foreseen, nothing to measure it by",
        "pass": "Pass",
        "first_pass": "First pass",
        "hires_pass": "Hires pass",
        "timeline": "Milliseconds of each step; below, its tokens on the large model",
        "step": "Step",
        "step_told": "Step {step} of {steps} · {stage} · σ {sigma} · {share} % of tokens on the large model · {ms} ms",
        "step_held": "Step {step} of {steps} · {stage} · σ {sigma} · full, with guidance held · {ms} ms",
        # the mask over the picture
        "picture": "Picture",
        "picture_of": "Picture {number} of {count}",
        "dimmed": "Dimmed: what the large model did not compute in this step.",
        "unrecorded": "The mask of this step was not recorded; tick Show mask and generate again.",
        # the comparison
        "compare": "Compare with the large model",
        "comparing": "The large model makes the same picture …",
        "compared": "From click to picture, with loading: {stitched} s by HybridStitch, {large} s by the large model.",
        "changed": "The settings have changed since this picture; generate it again first.",
        "no_seed": "The seed of this picture is not known; set one and generate it again first.",
        "cut_short": "This picture was interrupted; generate it again first.",
        "busy": "A picture is being made; wait until it is there.",
        "interrupted": "The comparison was interrupted; your picture is still here.",
        "failed": "The large model made no picture; your picture is still here.",
        "large_model": "Large model",
        "wiper": "How much of the picture is HybridStitch's",
        "wiper_told": "{share} % HybridStitch, {rest} % large model",
    }
)
"""Key → English text. In braces stands what the script fills in."""
