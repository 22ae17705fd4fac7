"""What the server that forks ranks loads before it does (forked.py)."""

import tensorboard.compat  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import stackgan_dist.train  # noqa: F401
from stackgan_dist.engines.deepspeed import import_deepspeed

import_deepspeed()
