"""Work of a CUDA GPU on another stream, and as the replay of a graph; see PyTorch's notes on CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def on_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Queue work on another stream: after all that the current one was given, and before what it is given next."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def capture(work: Callable[[], T]) -> tuple[Callable[[], object], T]:
    """Record work without doing it; it must have been done before, on another stream than the current one.

    Returns:
        what replays it, on the tensors that it read and wrote here; and what it returned.

    Raises:
        RuntimeError: when it cannot be recorded, because it waits for the GPU for instance.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may pin memory meanwhile
        result = work()
    return graph.replay, result
