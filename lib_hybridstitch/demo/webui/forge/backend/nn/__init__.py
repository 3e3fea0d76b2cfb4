"""Forge's engine: nn."""
