"""Score predictions against references: find cases, compute metrics, write tables."""
