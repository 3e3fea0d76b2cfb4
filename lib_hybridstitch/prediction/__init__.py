"""What a plan will cost here: operations, memory, step timings; and the resolver that makes plans of settings."""
