"""Forge's engine: patcher."""
