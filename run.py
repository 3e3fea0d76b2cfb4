"""Start HybridStitch from a fresh checkout: `python3 run.py serve | demo | test | bench`.

Needs nothing but Python. The first start makes a virtual environment of its own and installs into it what the command
needs; later starts find a stamp per requirements file and skip that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[Sequence[str]], "Finished"]
    Start = Callable[[Sequence[str], Mapping[str, str], Path], int]

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 10)
VENV_VARIABLE = "HYBRIDSTITCH_VENV"
MARKER = "hybridstitch-environment"

USAGE = """\
HybridStitch for WebUI

  python3 run.py serve [options]                the extension in your browser, in a small WebUI that comes with it
  python3 run.py demo  ["a prompt"] [options]   draw a prompt with the pair of models that comes with the project: large
                                                model, HybridStitch, Step cache and small model
  python3 run.py test  [--long] [pytest options]
                                                run every test, style and types included; --long adds what takes hours
  python3 run.py bench [race | overhead | prediction | memory | truesize | profile]
                                                race against the peers, time the parts, compare predicted speed-ups
                                                with the clock, compute memory, count and (on a CUDA GPU) time SD3.5 at
                                                its true sizes, measure the pair's profile
  python3 run.py screenshots                    make the README's pictures of the page anew

What follows the command is handed on; `python3 run.py serve --help` lists the options of serve, and so for the others.
The first start installs what it needs into .venv-hybridstitch/ (choose another folder with HYBRIDSTITCH_VENV).
"""


@dataclass(frozen=True)
class Requirements:
    """One requirements file, installed as one step.

    Args:
        path: the file, relative to the repository.
        what: said to the user while it is installed.
        alone: install the named packages without what they depend on.
    """

    path: str
    what: str
    alone: bool = False

    def fingerprint(self, root: Path) -> str:
        """Hash of everything that decides what is installed."""
        return hashlib.sha256(f"{self.alone}\n".encode() + (root / self.path).read_bytes()).hexdigest()


SERVE_STEPS = (
    Requirements(
        "hybridstitch_demo/requirements-torch.txt",
        "PyTorch, which computes everything; it is large, so this takes some minutes",
    ),
    Requirements("hybridstitch_demo/requirements.txt", "the demo's libraries; about a minute"),
)
DEMO_STEPS = (
    *SERVE_STEPS,
    Requirements(
        "hybridstitch_demo/requirements-data.txt",
        "the weights of LPIPS, which measures how far two pictures are apart",
        alone=True,
    ),
)
BENCH_STEPS = (
    *DEMO_STEPS,
    Requirements("benchmarks/requirements.txt", "a peer of the race and what draws its plot; about a minute"),
)
TEST_STEPS = (*DEMO_STEPS, Requirements("tests/requirements.txt", "the tools that check the project; about a minute"))


@dataclass(frozen=True)
class Layer:
    """An environment above the main one: what it has of its own hides what the main one has of it.

    A gradio that a WebUI pins drags old versions of other packages along, which nothing else here should meet.

    Args:
        name: part of its folder's name.
        requirements: what it has of its own.
        newest: the newest Python that its packages install on.
    """

    name: str
    requirements: Requirements
    newest: tuple[int, int]


def gradio(version: str, newest: tuple[int, int], where: str) -> Layer:
    """The layer with the page's toolkit as a WebUI pins it."""
    path = f"hybridstitch_demo/requirements-gradio-{version}.txt"
    return Layer(f"gradio-{version}", Requirements(path, f"gradio {version}, as {where} has it"), newest)


FORGE_PAGE = gradio("4.40.0", (3, 13), "Forge")
A1111_PAGE = gradio("3.41.2", (3, 11), "AUTOMATIC1111")


@dataclass(frozen=True)
class Command:
    """What a word on the command line starts.

    Args:
        module: run with `python -m`.
        steps: what it needs installed.
        from_root: whether it runs in the repository instead of the user's folder.
        layers: the environment it runs in, by the value of `--like`; the first is the default.
    """

    module: str
    steps: tuple[Requirements, ...]
    from_root: bool = False
    layers: Mapping[str, Layer] = field(default_factory=dict)

    def layer(self, arguments: Sequence[str]) -> Layer | None:
        """The layer that these arguments ask for; the command itself refuses a value that it does not know."""
        if not self.layers:
            return None
        default = next(iter(self.layers.values()))
        values = [after for before, after in itertools.pairwise(arguments) if before == "--like"]
        values += [word.partition("=")[2] for word in arguments if word.startswith("--like=")]
        return self.layers.get(values[-1], default) if values else default


COMMANDS = {
    "serve": Command("hybridstitch_demo.serve", SERVE_STEPS, layers={"forge": FORGE_PAGE, "a1111": A1111_PAGE}),
    "demo": Command("hybridstitch_demo.command", DEMO_STEPS),
    "test": Command("pytest", TEST_STEPS, from_root=True),
    "bench": Command("benchmarks", BENCH_STEPS),
    "screenshots": Command("tests.browser.screenshots", TEST_STEPS, from_root=True),
}


class SetupError(Exception):
    """The environment cannot be made; the message is one sentence for the user."""


@dataclass(frozen=True)
class Finished:
    """How a process ended: its exit code, and what it said about errors."""

    code: int
    errors: str


def run_quietly(command: Sequence[str]) -> Finished:
    """Run a process, its output on our standard error when that is a terminal; its own errors are collected."""
    output = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    except OSError as error:
        return Finished(127, str(error))
    return Finished(done.returncode, done.stderr)


def start_and_wait(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run the user's command and return its exit code; Ctrl-C reaches it.

    Where the system can, this process becomes the command, so that signals and exit code need no forwarding.
    """
    if os.name == "posix":
        os.chdir(folder)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(command[0], list(command), dict(environment))
    with subprocess.Popen(command, env=dict(environment), cwd=folder) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the console gave it to the command too, which decides when it is done
                time.sleep(0.05)


def say(line: str) -> None:
    """Tell the user what is going on; standard output belongs to the command."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Environment:
    """A virtual environment which knows what was installed into it.

    Args:
        folder: where it lives.
        root: the repository.
        run: runs a process and waits for it.
        say: prints a line for the user.
    """

    folder: Path
    root: Path = ROOT
    run: Run = run_quietly
    say: Callable[[str], None] = field(default=say)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def prepare(self, steps: Sequence[Requirements]) -> None:
        """Make the environment where it is missing or broken, and install what is not installed yet.

        Raises:
            SetupError: when that is not possible, in one sentence.
        """
        if not self._works():
            self._clear()
            self._make()
        for step in steps:
            stamp = self._stamp(step)
            if not stamp.is_file() or stamp.read_text() != step.fingerprint(self.root):
                self._install(step)
                stamp.write_text(step.fingerprint(self.root))

    def above(self, layer: Layer) -> Environment:
        """Make an environment that sees this one's packages behind its own.

        Raises:
            SetupError: when that is not possible, in one sentence.
        """
        if sys.version_info[:2] > layer.newest:
            have, need = (".".join(map(str, version)) for version in (sys.version_info[:2], layer.newest))
            raise SetupError(f"{layer.name} needs Python {need} or older and this is {have}; use an older one.")
        upper = replace(self, folder=self.folder.with_name(f"{self.folder.name}-{layer.name}"))
        upper.prepare([layer.requirements])
        link = upper.packages / f"{MARKER}.pth"
        if not link.is_file() or link.read_text() != f"{self.packages}\n":
            link.parent.mkdir(parents=True, exist_ok=True)
            link.write_text(f"{self.packages}\n")
        return upper

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        return self.folder / ("Lib/site-packages" if os.name == "nt" else f"lib/{version}/site-packages")

    def _works(self) -> bool:
        """Whether the interpreter starts and sees packages; it does not after a broken or outdated set-up."""
        if not self.python.is_file():
            return False
        probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
        return self.run([str(self.python), "-c", probe]).code == 0

    def _clear(self) -> None:
        """Remove what a broken set-up left behind, but never a folder that we did not make."""
        if not self.folder.exists():
            return
        if (self.folder / MARKER).is_file():
            self.say(f"The environment in {self.folder} is incomplete or no longer works; making it anew.")
            shutil.rmtree(self.folder)
        elif not self.folder.is_dir() or any(self.folder.iterdir()):
            raise SetupError(
                f"{self.folder} is in use for something else and is no working Python environment; "
                f"remove it, or name another folder in {VENV_VARIABLE}."
            )

    def _make(self) -> None:
        if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
            raise SetupError(missing_venv())
        self.say(f"Making a Python environment in {self.folder} (once).")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MARKER).write_text("Made by run.py, which may remove and remake this folder.\n")
        except OSError as error:
            raise SetupError(
                f"{self.folder} cannot be written ({error}); name another folder in {VENV_VARIABLE}."
            ) from error
        done = self.run([sys.executable, "-m", "venv", str(self.folder)])
        if done.code != 0:
            raise SetupError(missing_venv() if "ensurepip" in done.errors else _venv_failed(self.folder, done))

    def _install(self, step: Requirements) -> None:
        self.say(f"Installing {step.what} (first start only).")
        command = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2"]
        if step.alone:
            command.append("--no-deps")
        done = self.run([*command, "-r", str(self.root / step.path)])
        if done.code != 0:
            raise SetupError(install_failed(step, done.errors))

    def _stamp(self, step: Requirements) -> Path:
        return self.folder / (MARKER + "-" + re.sub(r"\W+", "-", step.path))


def missing_venv() -> str:
    """The sentence for a Python without venv, as Debian and Ubuntu ship it."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return (
        f"This Python {version} cannot make virtual environments; install its venv module "
        f"(on Debian and Ubuntu: sudo apt install python{version}-venv) and run the same command again."
    )


def _venv_failed(folder: Path, done: Finished) -> str:
    reason = _last_line(done.errors)
    return f"No Python environment could be made in {folder} ({reason}); name another folder in {VENV_VARIABLE}."


def install_failed(step: Requirements, errors: str) -> str:
    """The sentence for a failed installation, by what pip said."""
    again = "run the same command again, it continues where it stopped"
    if re.search(r"no space left|not enough space|errno 28\b", errors, re.IGNORECASE):
        return f"The disk is full: make room for {step.path} (PyTorch alone may need several gigabytes), then {again}."
    offline = r"connection|timed out|timeout|name resolution|name or service|getaddrinfo|unreachable|proxy|ssl"
    if re.search(offline, errors, re.IGNORECASE):
        return (
            f"The packages of {step.path} could not be downloaded, because the package index cannot be reached: "
            f"check the internet connection (or the mirror and proxy in pip's configuration), then {again}."
        )
    if "No matching distribution" in errors:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            f"pip finds no package for Python {version} on this system ({_last_line(errors)}); "
            f"try another Python version from {OLDEST[0]}.{OLDEST[1]} on, after removing the environment's folder."
        )
    return f"pip could not install {step.path} ({_last_line(errors)}); {again}."


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[notice]" not in line]
    return lines[-1] if lines else "it gave no reason"


def child_environment(command: Command, root: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of the command: the project is importable from any folder."""
    result = {key: value for key, value in inherited.items() if key != "PYTHONHOME"}
    result["PYTHONPATH"] = os.pathsep.join(part for part in (str(root), inherited.get("PYTHONPATH")) if part)
    if not command.from_root:
        result["PYTHONSAFEPATH"] = "1"  # a file torch.py in the user's folder must not hide the library
    return result


def main(
    arguments: Sequence[str],
    variables: Mapping[str, str] = os.environ,
    version: tuple[int, ...] = sys.version_info[:2],
    run: Run = run_quietly,
    start: Start = start_and_wait,
) -> int:
    """Do what the command line asks for and return the exit code; `run` and `start` lead to other processes."""
    if version < OLDEST:
        needed, found = (".".join(map(str, numbers)) for numbers in (OLDEST, version))
        say(f"HybridStitch needs Python {needed} or newer and this is {found}; start run.py with a newer one.")
        return 1
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        say(f"run.py knows no command {name!r}; it offers {', '.join(COMMANDS)}.\n\n{USAGE}".rstrip())
        return 2
    command = COMMANDS[name]
    environment = Environment(Path(variables.get(VENV_VARIABLE) or ROOT / ".venv-hybridstitch").absolute(), run=run)
    try:
        environment.prepare(command.steps)
        layer = command.layer(rest)
        environment = environment.above(layer) if layer else environment
    except SetupError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Stopped; the same command continues where it was.")
        return 130
    line = [str(environment.python), "-m", command.module, *rest]
    return start(line, child_environment(command, ROOT, variables), ROOT if command.from_root else Path.cwd())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
