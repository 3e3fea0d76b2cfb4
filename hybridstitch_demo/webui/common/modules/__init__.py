"""The host's own package, in the parts that an extension meets."""
