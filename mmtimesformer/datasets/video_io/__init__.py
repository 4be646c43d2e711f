"""Open and decode video files safely: which files are accepted, and how frames are read."""
