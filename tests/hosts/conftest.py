"""The extension inside each stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lib_hybridstitch.plans.plan import parse
from lib_hybridstitch.prediction.resolver import in_words
from tests import standins
from tests.standins import Host, Result

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "hybridstitch.py"
HOSTS = ("a1111", "forge", "ersatz")
SMALL = "sd3.5_medium"
STEPS = 8
ALL_LARGE = {"plan": "1L / hires 1L"}
HIRES: dict[str, Any] = {"enable_hr": True, "denoising_strength": 0.6, "hr_scale": 1.5, "hr_cfg": 3.0}


class Web:
    """A stand-in with the extension loaded.

    Args:
        host: the stand-in.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.script: Any = host.load_script(SCRIPT)
        self.small = SMALL

    @cached_property
    def plain(self) -> Tensor:
        """The latents of the host's own picture."""
        return self.off().latents

    @property
    def extension(self) -> Any:
        """This load of the extension."""
        return self.host.module("modules.script_loading").loaded_scripts[str(SCRIPT)].EXTENSION

    @property
    def last_pass(self) -> dict[str, Any]:
        """The only pass of the last run, in figures."""
        [done] = self.extension.last_run["passes"]
        return dict(done)

    @property
    def kept_small(self) -> Any:
        """The small model that is kept between runs, or None."""
        return self.extension.slot._model

    def off(self, **request: Any) -> Result:
        """Generate with the accordion unticked."""
        return self.host.generate(**{"steps": STEPS, **request})

    def on(self, stitch: dict[str, Any] | None = None, **request: Any) -> Result:
        """Generate with it ticked; the preset is Paper, which has all three stages, unless another is given."""
        return self.call({"small_checkpoint": self.small, "preset": "Paper", **(stitch or {})}, **request)

    def call(self, stitch: dict[str, Any], **request: Any) -> Result:
        """Generate with these settings and no others."""
        wanted = {"enabled": True, **stitch}
        return self.host.generate(alwayson={"HybridStitch": [wanted]}, **{"steps": STEPS, **request})

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """How often each network begins a pass, by any way into it: its first module is called in every one."""
        counts = {"large": 0, "small": 0}

        def hook(name: str) -> Callable[..., None]:
            return lambda *_: counts.update({name: counts[name] + 1})

        found = {"large": self.host.load(), "small": self.small_network()}
        handles = [
            network.x_embedder.register_forward_pre_hook(hook(name)) for name, network in found.items() if network
        ]
        try:
            yield counts
        finally:
            for handle in handles:
                handle.remove()

    def small_network(self) -> Any:
        """The transformer of the small model that is kept, or None."""
        small = self.kept_small
        return getattr(small, "network", None) or (small and small.patcher.model.diffusion_model)


def as_planned(result: Result) -> bool:
    """Whether what happened in a single pass is what its plan says, step for step."""
    plan, _ = parse(str(result.infotext["HybridStitch plan"]))
    return plan is not None and result.infotext["HybridStitch"] == in_words(plan.steps)


def make(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, **options: Any) -> Host:
    """Install a stand-in by name."""
    if name == "a1111":
        return standins.a1111.install(monkeypatch, folder, **options)
    return standins.forge.install(monkeypatch, folder, like=name, **options)


@pytest.fixture(scope="module", params=HOSTS)
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The extension in every stand-in, one for a whole file: its tests leave it as they found it."""
    with pytest.MonkeyPatch.context() as patches:
        yield Web(make(patches, tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Host]:
    """Install a stand-in for one test, without the extension: name and options → host."""
    return lambda name, **options: make(monkeypatch, tmp_path, name, **options)


@pytest.fixture(params=HOSTS)
def fresh(request: pytest.FixtureRequest, install: Callable[..., Host]) -> Web:
    """The extension in every stand-in, for one test that does not leave it as it was."""
    return Web(install(request.param))


in_a1111 = pytest.mark.parametrize("web", ["a1111"], indirect=True)
in_forges = pytest.mark.parametrize("web", ["forge", "ersatz"], indirect=True)
