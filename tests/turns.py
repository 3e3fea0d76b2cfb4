"""Which tests run beside which, where several processes share the work.

Most tests do not mind company. What measures time waits until the others are between two tests, and they wait until it
is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

MOST_WORKERS = 4
"""Beyond that the browser's tests, which one process runs, take longer than all others."""


@dataclass(frozen=True)
class Workers:
    """The processes that share the tests.

    Args:
        count: how many there are; 0 when everything runs in one.
        own: the number of this one.
    """

    count: int
    own: int

    @classmethod
    def here(cls) -> Workers:
        """What pytest-xdist says of this process."""
        name = os.environ.get("PYTEST_XDIST_WORKER", "")
        if not name:
            return cls(0, 0)
        return cls(int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), int(name.removeprefix("gw")))

    @contextmanager
    def turn(self, alone: bool, folder: Path) -> Iterator[None]:
        """Wait for the room that a test needs, and leave it afterwards.

        Every process has a room. Who takes rooms holds the door meanwhile, so that nobody can overtake one that waits
        for all of them.

        Args:
            alone: whether it must have all rooms.
            folder: where the locks lie; the same for all processes.
        """
        with ExitStack() as held:
            if self.count:
                with FileLock(folder / "door"):
                    for number in range(self.count) if alone else [self.own]:
                        held.enter_context(FileLock(folder / f"room-{number}"))
            yield
