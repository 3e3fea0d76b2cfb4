"""The network: architecture, our own MMDiT-X, checkpoints, and passes over some of its tokens."""
