"""Find out which WebUI this is, once."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from lib_hybridstitch.errors import HybridStitchError
from lib_hybridstitch.hosts.a1111 import A1111Host
from lib_hybridstitch.hosts.base import Host
from lib_hybridstitch.hosts.forge import ForgeHost
from lib_hybridstitch.hosts.shared import SharedHost

ERSATZ = "ersatz"


class UnsupportedHost(SharedHost):
    """A WebUI that cannot run SD3 models; the extension explains itself there and does nothing.

    Args:
        reason: one sentence for the panel.
    """

    name = "this WebUI"

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def problem(self) -> str:
        """Why the extension cannot work here."""
        return self._reason

    def version(self) -> str:
        """Unknown."""
        return ""

    def heal(self) -> None:
        """There is never anything to heal."""

    def on_cfg_denoiser(self, params: Any) -> None:
        """There is never anything to note."""

    def release(self) -> bool:
        """There is never anything to release."""
        return False

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any, **__: Any) -> Any:
            raise HybridStitchError(self._reason)

        if name.startswith("_"):
            raise AttributeError(name)
        return refuse


def detect() -> Host:
    """Return the adapter of the WebUI that this process is, or one that says what is missing."""
    if _exists("modules_forge"):
        if _exists("backend.nn.mmditx"):
            from modules_forge import forge_version

            ersatz = ERSATZ in str(getattr(forge_version, "version", ""))
            return ForgeHost("ersatzForge" if ersatz else "Forge")
        return UnsupportedHost(
            "This WebUI has no Stable Diffusion 3 models, which HybridStitch stitches; use ersatzForge, Forge or "
            "AUTOMATIC1111 1.10."
        )
    if _exists("modules.models.sd3"):
        return A1111Host()
    return UnsupportedHost(
        "HybridStitch needs a WebUI with Stable Diffusion 3 models: ersatzForge, Forge or AUTOMATIC1111 from 1.10 on."
    )


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
