"""What all trainers share: the base class, recipes, losses, pretrained encoders, run record."""
