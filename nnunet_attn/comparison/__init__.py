"""Trained networks beside a baseline: gathered scores, paired tests, what each row recorded and cost."""
