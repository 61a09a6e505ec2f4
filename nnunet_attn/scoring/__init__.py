"""Metrics of predictions against references: which cases there are, their scores, the long table."""
