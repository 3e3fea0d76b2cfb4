"""Setups for tests of predictions."""

from __future__ import annotations

from lib_hybridstitch.mmdit.config import MMDiTConfig
from lib_hybridstitch.prediction.operations import Setup
from tests.networks import LARGE, MEDIUM

TINY = Setup(LARGE, MEDIUM, tokens=100, context=7, images=2, streams=2)
SD35_LARGE = MMDiTConfig(38, 2, 16, 16, 4096, 2048, 192, True)
SD35_MEDIUM = MMDiTConfig(24, 2, 16, 16, 4096, 2048, 384, True, tuple(range(13)))
TRUE_SIZE = Setup(SD35_LARGE, SD35_MEDIUM, tokens=4096, context=333, images=1, streams=2)
