"""The only place that knows SQL: one writer with group commit, a pool of readers, the schema."""
