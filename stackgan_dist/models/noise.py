"""The noise of a generator whose training reads pictures: z as it was read of late, and not from N(0, 1).

A reader (reader.py) fills z as it can: the way that a bird faces becomes two clusters with nothing between, told by
several numbers at once. A z from N(0, 1) nearly always lies where no picture was ever read, and there the generator
makes birds with two heads. So z is drawn from what the reader found in real pictures: from the aggregate posterior, as
it is called for variational auto-encoders (arXiv 1511.05644), of which the rows that were read last are a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stackgan_dist.models.outputs import Reading

_ROWS = 1_024


class NoiseAsRead(nn.Module):
    """z (N, noise_dim) from N(0, 1) -> z as `note` was told of; at first it stays as it is.

    Args:
        noise_dim: the numbers of z.
    """

    read: Tensor
    """(1024, 2, noise_dim): mu and sigma of the rows that were read last, the newest at the end."""
    not_averaged = ("read",)
    """What a moving average of weights takes as it is: a mean of rows would be a row that nobody has read."""

    def __init__(self, noise_dim: int) -> None:
        super().__init__()
        self.register_buffer("read", torch.tensor([0.0, 1.0])[:, None].repeat(_ROWS, 1, noise_dim))
        self.of_all_ranks: Callable[[Tensor], Tensor] | None = None
        """This rank's rows (n, k) -> those of all ranks in the order of the global batch. None: there is one rank."""

    def forward(self, z: Tensor) -> Tensor:
        """mu + sigma z of the row whose number is the share of N(0, 1) below the first number of z, in 1024ths."""
        below = (1 + torch.erf(z[:, 0].to(self.read.dtype) * math.sqrt(0.5))) / 2
        mu, sigma = self.read[(below * _ROWS).long().clamp(0, _ROWS - 1)].unbind(1)
        return (mu + sigma * z).to(z.dtype)

    @torch.no_grad()
    def note(self, reading: Reading) -> None:
        """Keep what this rank's rows were read as, and those of all others: every rank has to call it."""
        rows = torch.cat([reading.mu, reading.log_sigma.exp()], dim=1).to(self.read.dtype)
        if self.of_all_ranks is not None:
            rows = self.of_all_ranks(rows)
        known = torch.cat([self.read, rows.view(-1, *self.read.shape[1:])])
        self.read.copy_(known[-_ROWS:])
