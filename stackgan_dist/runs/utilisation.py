"""How well a device is used: the most memory that was taken, and what model FLOPs utilisation is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.machine import peak_memory_bytes

_PRODUCT_SIDE = {"cpu": 768, "cuda": 8192}
_CONVOLUTION = {"cpu": (4, 256, 16), "cuda": (64, 512, 32)}
"""(pictures, channels, side) of a 3x3 convolution that keeps its channels."""
_REPEATS = 3


@dataclass(frozen=True)
class Work:
    """What model FLOPs utilisation is made of, on rank 0."""

    flop_per_step: float
    """Operations of this rank's rows."""
    peak_flops: float
    """Operations a second that its device reaches at best."""

    def utilisation(self, steps: int, seconds: float) -> float:
        """The share of the peak that so many steps in so many seconds reach."""
        return self.flop_per_step * steps / seconds / self.peak_flops


def peak_memory_of(device: torch.device) -> int:
    """The most bytes that this process has had at once: on CUDA what torch held, else resident in the host."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second (2 for a multiply-add) of the faster of a matrix product and a convolution.

    Large ones, with the threads that torch has now. Which is the faster depends on the libraries: on AMD's processors
    it is the convolution. On CPUs by CPU time, so that a busy machine has the same peak. A tenth of a second there,
    and less on a GPU; the device is waited for.
    """
    side = _PRODUCT_SIDE[device.type]
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    pictures, channels, pixels = _CONVOLUTION[device.type]
    image = torch.ones(pictures, channels, pixels, pixels, device=device, dtype=dtype)
    kernel = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
    if device.type == "cuda":
        image, kernel = (one.contiguous(memory_format=torch.channels_last) for one in (image, kernel))
    with torch.no_grad():
        product = 2 * side**3 / _quickest_s(partial(torch.mm, matrix, matrix), device)
        convolution = partial(F.conv2d, image, kernel, padding=1)
        return max(product, 2 * 9 * channels * image.numel() / _quickest_s(convolution, device))


def _quickest_s(work: Callable[[], Tensor], device: torch.device) -> float:
    """The shortest time that `work` took, after once that does not count."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            begin = time.perf_counter()
            work()
            torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
        else:
            begin = time.process_time()
            work()
            seconds.append((time.process_time() - begin) / torch.get_num_threads())
    return max(min(seconds), 1e-9)
