"""A drive that fails at any read of the small checkpoint, wherever in the file: one sentence, and the large picture."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lib_hybridstitch.generation import summary
from lib_hybridstitch.hosts import forge_loader
from lib_hybridstitch.mmdit import header
from tests.reliability.bench import Bench, same

SHORT = "short"
FAULTS: dict[str, Callable[[], Exception | str]] = {
    "drive gone": lambda: OSError(errno.EIO, "Input/output error"),
    "no memory": lambda: MemoryError("no memory is left"),
    "cut short": lambda: SHORT,
}
READS = ("read", "readinto", "seek", "fileno", "keys", "get_tensor")


class Drive:
    """Stands between the extension and the files it opens, notes its reads, and lets one of them fail.

    Args:
        fails_at: which read; 0 for none.
        fault: what is raised, or `SHORT` for a read that gives half of what was asked for.
    """

    def __init__(self, fails_at: int = 0, fault: Exception | str = SHORT) -> None:
        self.fails_at, self.fault = fails_at, fault
        self.reads: list[str] = []

    def used(self, inner: Any, name: str, *args: Any) -> Any:
        """One read, or what else is asked of an open file."""
        self.reads.append(name)
        if len(self.reads) != self.fails_at:
            return getattr(inner, name)(*args)
        if isinstance(self.fault, Exception):
            raise self.fault
        if name == "read":
            return inner.read(*args)[: args[0] // 2]
        return inner.readinto(args[0][: len(args[0]) // 2])

    @contextmanager
    def between(self) -> Iterator[None]:
        """Every file that the extension opens lies on this drive."""
        with pytest.MonkeyPatch.context() as patch:
            stream, mapped = header._stream, forge_loader.safe_open
            patch.setattr(header, "_stream", lambda *args: _Open(self, stream(*args)))
            patch.setattr(forge_loader, "safe_open", lambda *args, **kwargs: _Open(self, mapped(*args, **kwargs)))
            yield


class _Open:
    """An open file of a drive."""

    def __init__(self, drive: Drive, inner: Any) -> None:
        self._drive, self._inner = drive, inner

    def __getattr__(self, name: str) -> Any:
        if name not in READS:
            return getattr(self._inner, name)
        return lambda *args: self._drive.used(self._inner, name, *args)

    def __enter__(self) -> _Open:
        self._inner = self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._inner.__exit__(*error)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_read_that_fails_costs_no_picture(bench: Bench, kind: str, long_run: bool) -> None:
    """Header, tensors and what is asked between them; with --long every one of them.

    Where the extension can do without what it asked for, it stitches as if nothing had been.
    """
    bench.web.extension.release()
    drive = Drive()
    assert same(bench.run(True, lambda _p: drive.between()).latents, bench.on)
    fails = [at for at, name in enumerate(drive.reads, 1) if kind != "cut short" or name in ("read", "readinto")]
    stopped = 0
    for number in fails[:: 1 if long_run else len(fails) // 3]:
        bench.web.extension.release()
        fault = FAULTS[kind]()
        failing = Drive(number, fault)
        outcome = bench.run(True, lambda _p, drive=failing: drive.between())
        if isinstance(fault, Exception):
            fault.__traceback__ = fault.__context__ = None
        reason = outcome.infotext.get(summary.STOPPED, "")
        assert outcome.raised is None and len(failing.reads) >= number
        assert same(outcome.latents, bench.off if reason else bench.on), f"read {number}"
        assert len(outcome.log) == bool(reason)
        if reason and kind != "no memory":
            assert f"{bench.web.small}.safetensors" in reason
        stopped += bool(reason)
        assert bench.left_behind(outcome) == [], f"read {number}"
    print(
        f"{bench.host.name}, {kind}: {len(fails)} of {len(drive.reads)} reads can fail, {stopped} tried ones stopped it"
    )
    assert stopped
    assert bench.afterwards() == []


def test_a_small_checkpoint_that_is_cut_off_anywhere_costs_no_picture(bench: Bench, long_run: bool) -> None:
    """In its header and in and between tensors: one sentence, and the large model's picture."""
    folder = bench.host.module("modules.sd_checkpoints").folder[0]
    whole = (folder / "sd3.5_medium.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    tensors = [entry for name, entry in json.loads(whole[8 : 8 + header]).items() if name != "__metadata__"]
    ends = sorted(8 + header + tensor["data_offsets"][1] for tensor in tensors)
    cuts = [0, 1, 7, 8, 9, 8 + header // 2, 8 + header - 1, 8 + header]
    cuts += [cut + shift for cut in (ends if long_run else ends[:: len(ends) // 3]) for shift in (-1, 0)]
    plan, title = bench.plan, "cut"
    try:
        found = sorted({cut for cut in cuts if cut < len(whole)})
        for cut in found if long_run else found[::2]:
            (folder / f"{title}.safetensors").write_bytes(whole[:cut])
            bench.host.sd_models.list_models()
            bench.plan = {**plan, "small_checkpoint": title}
            outcome = bench.run(True)
            assert same(outcome.latents, bench.off), f"cut at {cut}"
            assert "cut.safetensors" in outcome.infotext[summary.STOPPED], f"cut at {cut}"
            assert len(outcome.log) == 1
    finally:
        bench.plan = plan
        (folder / f"{title}.safetensors").unlink(missing_ok=True)
        bench.host.sd_models.list_models()
    assert bench.left_behind(outcome) == []
    assert bench.afterwards() == []
