"""Folders of the host; the stand-in's are set when it is installed."""

from __future__ import annotations

script_path = "."
data_path = "."
models_path = "models"
extensions_dir = "extensions"
