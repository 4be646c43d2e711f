"""Several processes: FSDP, sharded checkpoints, collectives and signals."""
