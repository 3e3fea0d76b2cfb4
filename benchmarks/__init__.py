"""Speed and quality against the peers."""
