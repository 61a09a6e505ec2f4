"""Studies: many trainings (datasets x trainers x folds x repeats) from one file, run by Snakemake or on Slurm."""
