"""One thin adapter per WebUI, and what they share."""
