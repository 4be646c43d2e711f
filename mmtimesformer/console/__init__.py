"""The command ``mmtimesformer``: its tools by job, and shell completion."""
