"""The small model of a run: found in the host's list, asked whether it fits, loaded once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lib_hybridstitch.errors import PairError, StitchError
from lib_hybridstitch.hosts.base import CheckpointFile, Host, LargeModel, SmallModel
from lib_hybridstitch.hosts.slot import ModelSlot
from lib_hybridstitch.prediction.operations import Setup
from lib_hybridstitch.settings import StitchSettings


@contextmanager
def small_model(
    host: Host, slot: ModelSlot[SmallModel], p: Any, settings: StitchSettings, large: LargeModel, setup: Setup
) -> Iterator[tuple[SmallModel, CheckpointFile]]:
    """The small model for as long as a pass lasts; loaded where it is not yet, and kept afterwards.

    Raises:
        HybridStitchError: in one sentence, when there is none, it does not fit, or cannot be used with the large one.
    """
    if not settings.small_checkpoint:
        raise StitchError("this plan needs a small model: choose a small checkpoint, SD3.5-Medium for SD3.5-Large")
    file = host.find_checkpoint(settings.small_checkpoint)
    key = host.small_key(file, settings)
    if not slot.holds(key):
        need = host.small_budget(p, file, settings, setup)
        if short := need.shortage(host.memory(host.small_device(settings))):
            raise StitchError(short)
    with host.status(f"HybridStitch: loading {file.path.stem}"):
        small = slot.take(key, lambda: host.load_small(file, settings))
    try:
        large.config.check_pair(small.config, "the large checkpoint", file.path.name)
        yield small, file
    except PairError:
        slot.release()
        raise
    finally:
        try:
            small.rest()
        finally:
            slot.free()
