"""Forge's engine: modules."""
