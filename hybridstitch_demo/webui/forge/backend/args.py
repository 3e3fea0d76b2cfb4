"""The engine's command line, and what the page changes of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

args = SimpleNamespace(disable_gpu_warning=False, always_offload_from_vram=False)
dynamic_args: dict[str, Any] = {"embedding_dir": "./embeddings", "emphasis_name": "original"}
