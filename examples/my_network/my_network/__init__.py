"""A network of my own as a trainer of unmodified nnU-Net."""
