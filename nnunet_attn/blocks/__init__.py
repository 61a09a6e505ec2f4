"""The ideas of the papers, one per file: tensors in, tensors out."""
