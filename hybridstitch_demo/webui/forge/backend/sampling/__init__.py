"""Forge's engine: sampling."""
