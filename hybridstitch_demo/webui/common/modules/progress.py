"""Which job runs, which wait, and how far the running one is: what the page asks while it waits."""

from __future__ import annotations

import time
from typing import Any

from modules import shared

current_task: str | None = None
pending_tasks: dict[str, float] = {}
finished_tasks: list[str] = []
started_at = 0.0
_KEPT = 16


def add_task_to_queue(id_job: str) -> None:
    """Note a job that waits."""
    pending_tasks[id_job] = time.time()


def start_task(id_task: str) -> None:
    """Note that a job runs now."""
    globals().update(current_task=id_task, started_at=time.time())  # module variables, as the hosts have them
    pending_tasks.pop(id_task, None)


def finish_task(id_task: str) -> None:
    """Note that a job is over."""
    if current_task == id_task:
        globals().update(current_task=None)
    finished_tasks.append(id_task)
    del finished_tasks[:-_KEPT]


def fraction() -> float:
    """How much of the running job is done, 0 to 1."""
    state = shared.state
    jobs = max(state.job_count, 1)
    inside = state.sampling_step / state.sampling_steps if state.sampling_steps else 0.0
    return min((state.job_no + inside) / jobs, 1.0)


def report(id_task: str) -> dict[str, Any]:
    """What `/internal/progress` answers about a job, but for the preview."""
    active, queued = id_task == current_task, id_task in pending_tasks
    told: dict[str, Any] = {
        "active": active,
        "queued": queued,
        "completed": id_task in finished_tasks,
        "progress": None,
        "eta": None,
        "textinfo": "In queue..." if queued else "Waiting..." if not active else shared.state.textinfo,
    }
    if active:
        done = fraction()
        told["progress"] = done
        told["eta"] = (time.time() - started_at) / done * (1 - done) if done else None
    return told
