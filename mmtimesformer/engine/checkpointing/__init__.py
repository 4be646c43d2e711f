"""Save, find, verify and resume checkpoints during training."""
