"""Run a script file by its path, without entering it into `sys.modules`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

loaded_scripts: dict[str, ModuleType] = {}


def load_module(path: str) -> ModuleType:
    """Execute a file as a fresh module that is named after the file, ending and all."""
    spec = importlib.util.spec_from_file_location(Path(path).name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded_scripts[path] = module
    return module
