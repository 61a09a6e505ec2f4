"""Metrics, comparison and cost of trained networks."""
