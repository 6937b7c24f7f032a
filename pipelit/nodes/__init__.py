"""What each component type does."""
