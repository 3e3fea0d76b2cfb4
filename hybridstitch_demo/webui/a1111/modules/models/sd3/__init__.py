"""SD3 as A1111 has it."""
