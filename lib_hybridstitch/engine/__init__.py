"""The engine: carries a plan out, evaluation by evaluation."""
