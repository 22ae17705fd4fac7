"""Mean and covariance of a set's features in a file that can be shared, as pytorch-fid and clean-fid keep them.

Both write NumPy's .npz with `mu` (width,) and `sigma` (width, width); some codes call them `m` and `s`. No file is ever
unpickled. A file says neither by which network nor from how many pictures it was made: the caller has to.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.errors import UserError
from stackgan_dist.scores.frechet import PictureMoments

NAMES = (("mu", "sigma"), ("m", "s"))
"""What files call mean and covariance."""
_LARGEST_BYTES = 8 * (2**14) ** 2 + 2**10
"""Of a covariance of 16,384 features."""
_ASYMMETRY = 1e-6
"""Of a covariance, in units of its largest entry."""


@dataclass(frozen=True)
class GivenMoments:
    """What a statistics file says of a set of pictures: a PictureMoments."""

    mean: Tensor
    covariance: Tensor
    sha256: str
    count: int | None = None
    """Pictures behind it; a file does not say."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """See PictureMoments."""
        return self.mean, self.covariance


def read_statistics(data: bytes, where: str, width: int, encoder: str) -> GivenMoments:
    """The statistics in the content `data` of the file `where`, for features of this `width` by `encoder`.

    Raises UserError for what is no such file, would have to be unpickled, or is of another width.
    """
    try:
        if any(member.file_size > _LARGEST_BYTES for member in zipfile.ZipFile(io.BytesIO(data)).infolist()):
            raise UserError(
                f"{where} unpacks to more than {_LARGEST_BYTES:,} bytes, more than any network's features need"
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names = next((pair for pair in NAMES if set(pair) <= set(file.files)), None)
            if names is None:
                raise UserError(
                    f"{where} holds {', '.join(file.files) or 'nothing'}; needed are mu and sigma (or m and s), as "
                    "pytorch-fid and clean-fid write them"
                )
            mean, covariance = (_array(file, name, where) for name in names)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, KeyError) as error:
        raise UserError(f"{where} is not a statistics file (.npz with mu and sigma): {error}") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{where} has a mean of shape {mean.shape} and a covariance of {covariance.shape}; needed are (n,) and "
            "(n, n)"
        )
    if len(mean) != width:
        raise UserError(
            f"{where} is of {len(mean):,} features, {encoder} has {width:,}: it was made with another network. Name "
            "that one with --classifier"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{where} holds NaN or Inf; make it again")
    if np.abs(covariance - covariance.T).max() > _ASYMMETRY * np.abs(covariance).max():
        raise UserError(f"{where}: its sigma is not symmetric, so it is no covariance; make it again")
    return GivenMoments(torch.from_numpy(mean), torch.from_numpy(covariance), hashlib.sha256(data).hexdigest())


def statistics_bytes(side: PictureMoments) -> bytes:
    """The content of a statistics file that pytorch-fid and clean-fid read."""
    mean, covariance = side.moments()
    content = io.BytesIO()
    np.savez(content, mu=mean.cpu().numpy(), sigma=covariance.cpu().numpy())
    return content.getvalue()


def _array(file: np.lib.npyio.NpzFile, name: str, where: str) -> NDArray[np.float64]:
    found = file[name]  # ValueError where it would have to be unpickled
    if not np.issubdtype(found.dtype, np.floating):
        raise UserError(f"{where}: {name} holds {found.dtype}, not numbers with a fraction")
    return np.ascontiguousarray(found, dtype=np.float64)
