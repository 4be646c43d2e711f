"""Start training and testing: one process, torchrun, Slurm or submitit."""
