"""Recent attention networks as trainers of unmodified nnU-Net. Importing this package imports nothing else."""

__version__ = "0.1.0"
