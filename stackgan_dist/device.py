"""What a device holds and how fast it multiplies: at its best, and now and then while it trains, to find slow ranks.

Nothing here touches torch's random numbers or a training's tensors, so no bit of a training depends on them.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.machine import peak_memory_bytes

_PRODUCT_SIDE = {"cpu": 768, "cuda": 8192}
_CONVOLUTION = {"cpu": (4, 256, 16), "cuda": (64, 512, 32)}
"""(pictures, channels, side) of a 3x3 convolution that keeps its channels."""
_REPEATS = 3

_PROBE_SIDE = {"cpu": 160, "cuda": 2048}
_PROBE_EVERY = 8
"""Steps: a probe costs less than a thousandth of a step of the paper's size."""


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


class Probe:
    """How long this rank takes for the same small product, beside whatever else goes on on its machine.

    On CUDA the product stands in the device's own queue and is timed by events that are read when they are over, so
    that nobody waits for them.
    """

    def __init__(self, device: torch.device) -> None:
        side = _PROBE_SIDE[device.type]
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._matrix = torch.ones(side, side, device=device, dtype=dtype)
        self._product = torch.empty_like(self._matrix)
        self._on_cuda = device.type == "cuda"
        self._calls = 0
        self._running: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._seconds: list[float] = []

    def step(self) -> None:
        """Call it once a step; it does something in one of eight."""
        self._calls += 1
        if self._calls % _PROBE_EVERY != 1:
            return
        if self._on_cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            torch.mm(self._matrix, self._matrix, out=self._product)
            end.record()
            self._running.append((begin, end))
            return
        since = time.perf_counter()
        torch.mm(self._matrix, self._matrix, out=self._product)
        self._seconds.append(time.perf_counter() - since)

    def lap(self) -> float:
        """The median since the last lap, s; 0 where there was none."""
        while self._running and self._running[0][1].query():
            begin, end = self._running.popleft()
            self._seconds.append(begin.elapsed_time(end) / 1000)
        seconds, self._seconds = self._seconds, []
        return statistics.median(seconds) if seconds else 0.0
