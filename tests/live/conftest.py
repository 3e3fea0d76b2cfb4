"""What the live tests share: the WebUI under test, left with the options it had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.client import Target, WebUI

HERE = Path(__file__).parent
REASON = "drives a running WebUI: give its address with --webui-url, and see --help for its checkpoints' names"
TIMESTEP_SAMPLERS = ("DDIM", "DDIM CFG++", "PLMS", "UniPC")
"""They work with discrete timesteps, not with noise levels."""


def _target(config: pytest.Config) -> Target:
    texts = {name: str(config.getoption(f"--webui-{name}")) for name in ("url", "small", "large", "other", "wrong")}
    forms = tuple(name for name in str(config.getoption("--webui-forms")).split(",") if name)
    size, steps = int(config.getoption("--webui-size")), int(config.getoption("--webui-steps"))
    return Target(**texts, forms=forms, size=size, steps=steps)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this folder's tests, with one reason, where no WebUI was named."""
    if not config.getoption("--webui-url"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=REASON))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per sampler and per schedule that the WebUI lists, and per file format that was named."""
    target = _target(metafunc.config)
    webui = WebUI(target) if target.url else None
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", target.forms)
    if "sampler" in metafunc.fixturenames:
        listed = webui.samplers() if webui else ["Euler"]
        metafunc.parametrize("sampler", [name for name in listed if name not in TIMESTEP_SAMPLERS])
    if "timestep_sampler" in metafunc.fixturenames:
        listed = webui.samplers() if webui else TIMESTEP_SAMPLERS
        metafunc.parametrize("timestep_sampler", [name for name in listed if name in TIMESTEP_SAMPLERS])
    if "scheduler" in metafunc.fixturenames:
        metafunc.parametrize("scheduler", webui.schedulers() if webui else ["Simple"])


@pytest.fixture(scope="session")
def webui(pytestconfig: pytest.Config) -> Iterator[WebUI]:
    """The WebUI; its options are compared at the end, and set back where a test has failed to."""
    under_test = WebUI(_target(pytestconfig))
    before = under_test.get("/sdapi/v1/options")
    yield under_test
    after = under_test.get("/sdapi/v1/options")
    changed = {name: before[name] for name in before if before[name] != after.get(name) and "hash" not in name}
    if changed:
        under_test.post("/sdapi/v1/options", changed)
    assert not changed, f"these options were left changed: {', '.join(changed)}"


@pytest.fixture
def own_large(webui: WebUI) -> None:
    """For tests that compare with the WebUI's own picture of the large model."""
    if not webui.runs_large_itself:
        pytest.skip("the WebUI does not run this large model by itself, so it has no picture of its own to compare")
