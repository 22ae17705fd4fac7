"""What the server that forks ranks loads before it does (forked.py).

torch's optimizers load its compiler at their first call, which takes nearly as long as torch itself, and ZeRO loads its
own.
"""

import importlib

import tensorboard.backend.event_processing.event_accumulator
import tensorboard.compat  # noqa: F401
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
from PIL import Image

import stackgan_dist.train.__main__  # noqa: F401
from stackgan_dist.engines.deepspeed import import_deepspeed

Image.init()
import_deepspeed()
importlib.import_module("deepspeed.compile.backend")
