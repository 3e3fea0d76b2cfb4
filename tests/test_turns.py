"""Tests that must run alone do, and the others do not wait for one another."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.turns import Workers


def _visit(workers: Workers, alone: bool, folder: Path, entered: threading.Event, leave: threading.Event) -> None:
    with workers.turn(alone, folder):
        entered.set()
        leave.wait(10)


class Visitor:
    """A process that shares the work, as a thread."""

    def __init__(self, own: int, alone: bool, folder: Path) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        arguments = (Workers(2, own), alone, folder, self.entered, self.leave)
        self.thread = threading.Thread(target=_visit, args=arguments, daemon=True)
        self.thread.start()

    def goes(self) -> None:
        """Let it end."""
        self.leave.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_ordinary_tests_run_side_by_side(tmp_path: Path) -> None:
    first, second = Visitor(0, False, tmp_path), Visitor(1, False, tmp_path)
    assert first.entered.wait(10) and second.entered.wait(10)
    first.goes()
    second.goes()


def test_one_that_runs_alone_waits_for_the_others_and_cannot_be_overtaken(tmp_path: Path) -> None:
    first = Visitor(0, False, tmp_path)
    assert first.entered.wait(10)
    alone = Visitor(1, True, tmp_path)
    time.sleep(0.2)
    assert not alone.entered.is_set()
    late = Visitor(0, False, tmp_path)
    first.goes()
    assert alone.entered.wait(10)
    time.sleep(0.2)
    assert not late.entered.is_set()
    alone.goes()
    assert late.entered.wait(10)
    late.goes()


def test_a_single_process_needs_no_locks(tmp_path: Path) -> None:
    with Workers(0, 0).turn(True, tmp_path):
        assert list(tmp_path.iterdir()) == []
