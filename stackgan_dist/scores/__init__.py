"""Judging a generator: scores as mergeable float64 sums, the classifiers they need, and pictures to look at."""
