"""Transforms of a video pipeline: decode, sample frames, resize, crop, format."""
