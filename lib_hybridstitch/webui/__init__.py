"""Gradio and script callbacks: the doors of the extension."""
