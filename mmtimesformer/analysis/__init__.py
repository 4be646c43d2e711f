"""Numbers about a model or a test: metrics, predictions, view agreement, FLOPs."""
