"""The U-Nets that carry an attention module in their skips, one per file."""
