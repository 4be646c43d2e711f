"""Training loops: resume mid-epoch, restart dead workers, several clips per video."""
