"""The embedded WebUI as a process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from run import COMMANDS, ROOT, child_environment
from tests.pages import environment


@dataclass(frozen=True)
class Server:
    """A running page.

    Args:
        like: the WebUI whose habits it has.
        address: http://…
        process: it.
    """

    like: str
    address: str
    process: subprocess.Popen[str]


@contextmanager
def serving(like: str, *arguments: str) -> Iterator[Server]:
    """Start the page on any free port and stop it by Ctrl-C."""
    made = environment(like)
    command = [str(made.python), "-m", COMMANDS["serve"].module, "--like", like, "--no-browser", "--port", "0"]
    variables = child_environment(COMMANDS["serve"], ROOT, os.environ)
    process = subprocess.Popen([*command, *arguments], env=variables, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, f"the page did not start: {line!r}"
        yield Server(like, next(word for word in line.split() if word.startswith("http")), process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
