"""Studies: datasets, trainers, folds and repeats in one file; run by Snakemake, on one machine or on Slurm."""
