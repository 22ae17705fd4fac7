"""Text encoders: sentences in, embeddings out. The index of a data set names the one that made its embeddings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import FolderLike
from stackgan_dist.text.files import find_file, is_trained, name_of, read_file

PUBLISHED = "published"
"""In place of an encoder's name: the embeddings that a data set's publisher gives."""


class SentenceError(UserError):
    """A sentence that an encoder cannot encode."""


class TextEncoder(Protocol):
    """A frozen sentence encoder."""

    name: str
    """Its identity, written into the index of every data set that it encodes: the registry's name, or one with the
    digest of a trained encoder's file."""
    dim: int
    """Width of an embedding."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry; batches internally.

        Raises SentenceError for a sentence that it cannot encode.
        """
        ...


ENCODERS = {
    "ngrams": "stackgan_dist.text.ngrams:NgramEncoder",
    "minilm": "stackgan_dist.text.minilm:MiniLMEncoder",
}
"""Name -> "module:class"; the class is called without arguments. Trained encoders are files (files.py)."""


def check_encoder(spec: str) -> None:
    """Raises UserError when `spec` is neither the name of an encoder nor a file, or folder, with a trained one."""
    if spec == PUBLISHED:
        raise UserError(
            "the embeddings of this data set were published without an encoder for other sentences; to draw new "
            "sentences, pack it with --encoder minilm and train on that"
        )
    if spec in ENCODERS:
        return
    try:
        read_file(spec)
    except FileNotFoundError:
        if is_trained(spec):
            raise UserError(
                f"{spec} is the name of a trained encoder; give its file, {spec}.pt, which lies in the folder of each "
                "data set and run that was made with it"
            ) from None
        raise UserError(
            f"unknown text encoder {spec!r}; known encoders: {', '.join(ENCODERS)}, and the files that "
            "stackgan_dist.train_text_encoder writes"
        ) from None


def encoder_name(spec: str) -> str:
    """What an index calls the encoder `spec`; UserError as `check_encoder`."""
    if spec == PUBLISHED or spec in ENCODERS:
        return spec
    check_encoder(spec)
    return name_of(read_file(spec)[0])


def load_encoder(spec: str, beside: Sequence[FolderLike] = ()) -> TextEncoder:
    """The encoder `spec`: a name of the registry, the file or folder of a trained one, or what an index calls that.

    Args:
        spec: which one.
        beside: folders that may hold the file of a trained one that is given by the index's name.

    Raises UserError when it is unknown, or what it needs is not there.
    """
    if is_trained(spec) and beside:
        data, where = find_file(spec, beside), f"{spec}.pt"
    else:
        check_encoder(spec)
        if spec in ENCODERS:
            module, _, attribute = ENCODERS[spec].partition(":")
            return getattr(importlib.import_module(module), attribute)()
        data, where = read_file(spec)
    from stackgan_dist.text.char_cnn_rnn import CharCNNRNNEncoder, from_file  # needs torch, which others do not

    return CharCNNRNNEncoder(from_file(data, where), name_of(data))
