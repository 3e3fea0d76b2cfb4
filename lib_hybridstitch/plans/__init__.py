"""The method: which model computes which token at which noise level."""
