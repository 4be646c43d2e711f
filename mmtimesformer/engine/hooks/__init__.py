"""MMEngine hooks for training and testing."""
