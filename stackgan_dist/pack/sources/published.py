"""The char-CNN-RNN embeddings that were published with CUB and Oxford-102, instead of an encoder's.

In one of two forms: a Python 2 pickle for each split (StackGAN's data release; N x captions x 1024, in the order of
filenames.pickle), or a Torch file for each picture (Reed et al.'s; its "txt" is captions x 1024).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.foreign.pickles import read_pickle
from stackgan_dist.pack.sources.foreign.t7 import read_t7


def read_names(files: Files, name: str) -> list[str]:
    """The pictures of a split, from its filenames.pickle. Raises UserError."""
    names = read_pickle(files.needed(name, "it is part of the StackGAN data release"), files.url(name))
    if not isinstance(names, list) or not names or not all(isinstance(entry, str) for entry in names):
        raise UserError(f"{files.url(name)} does not hold a list of file names")
    return names


def embeddings_from_pickle(files: Files, name: str, order: list[str]) -> Mapping[str, NDArray[np.float16]]:
    """The embeddings in the pickle `name`, (captions, dim) each, by the names in `order`. Raises UserError."""
    rows = read_pickle(files.needed(name, "it is part of the StackGAN data release"), files.url(name))
    if not isinstance(rows, list | np.ndarray) or len(rows) != len(order):
        found = f"{len(rows)} entries" if isinstance(rows, list | np.ndarray) else f"a {type(rows).__name__}"
        raise UserError(f"{files.url(name)} holds {found}; filenames.pickle beside it names {len(order)} pictures")
    return {key: _checked(row, f"{files.url(name)}, {key}") for key, row in zip(order, rows, strict=True)}


def embeddings_from_t7(files: Files, names: Iterable[str]) -> list[NDArray[np.float16]]:
    """The embeddings in the Torch files `names`, (captions, dim) each. Raises UserError."""
    found = []
    for name in names:
        content = read_t7(files.needed(name, "unpack all of the published embeddings"), files.url(name))
        found.append(_checked(content.get(b"txt") if isinstance(content, dict) else content, files.url(name)))
    return found


def _checked(rows: object, where: str) -> NDArray[np.float16]:
    array = np.asarray(rows) if isinstance(rows, np.ndarray | list) else None
    if array is None or array.ndim != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        found = f"an array {array.shape} of {array.dtype}" if array is not None else f"a {type(rows).__name__}"
        raise UserError(f"{where} holds {found}; finite embeddings (captions, dim) were expected")
    return array.astype(np.float16)
