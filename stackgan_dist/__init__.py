"""StackGAN trained on clusters: streamed, exact on any number of ranks, and impossible to lose."""

__version__ = "0.1.0"
