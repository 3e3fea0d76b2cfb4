"""Every method, in the order in which people are offered them. A new one is a file beside this and a line here."""

from __future__ import annotations

from lib_hybridstitch.plans.hybridstitch import HybridStitch
from lib_hybridstitch.plans.method import Method
from lib_hybridstitch.plans.ras import RAS
from lib_hybridstitch.plans.srdiffusion import SRDiffusion
from lib_hybridstitch.plans.step_cache import StepCache
from lib_hybridstitch.plans.t_stitch import TStitch

METHODS: tuple[type[Method], ...] = (
    HybridStitch,
    StepCache,
    TStitch,
    SRDiffusion,
    RAS,
)
