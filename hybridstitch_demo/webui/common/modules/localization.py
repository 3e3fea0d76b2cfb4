"""Translations: language → JSON files."""

from __future__ import annotations

localizations: dict[str, list[str]] = {}
