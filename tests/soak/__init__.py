"""The soak and its auditor."""
