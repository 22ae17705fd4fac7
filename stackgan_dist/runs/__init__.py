"""A run from the outside: its folder, checkpoints, curves and scores, and what keeps a training safe."""
