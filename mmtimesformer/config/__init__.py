"""A config before anything is built: find it by path or name, and check it."""
