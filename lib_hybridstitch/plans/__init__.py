"""A plan is a list of steps: who computes what at which noise level. One file per method, which writes such a list."""
