"""The life of one generation in a WebUI: its passes, the small model's place, and what is written down about it."""
