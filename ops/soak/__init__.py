"""The soak: a whole server simulated from a seed, and an auditor that looks at it from outside."""
