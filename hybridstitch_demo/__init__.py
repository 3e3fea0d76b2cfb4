"""The project's own trained pair, and what runs it without a WebUI."""
