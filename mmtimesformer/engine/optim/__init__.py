"""Optimizer wrappers, layer decay, learning rate schedules and weight averages."""
