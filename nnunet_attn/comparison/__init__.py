"""Compare trained networks with a baseline: gather scores, test paired differences, collect settings and cost."""
