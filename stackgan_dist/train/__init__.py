"""Training: the step, the loop around it, and what keeps a run from being lost."""
