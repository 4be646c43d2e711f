"""MMEngine hooks for training and testing; each file holds one."""
