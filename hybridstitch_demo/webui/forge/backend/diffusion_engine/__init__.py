"""Forge's engine: diffusion_engine."""
