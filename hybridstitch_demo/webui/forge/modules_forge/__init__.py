"""What Forge adds to the host's package."""
