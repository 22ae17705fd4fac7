"""Text encoders: sentences in, embeddings out. The index of a data set names the one that made its embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.importable import check_allowed, is_importable, known_part
from stackgan_dist.storage.folder import FolderLike
from stackgan_dist.text.files import file_of, find_file, has_file, name_of, read_file
from stackgan_dist.text.folders import PREFIX, check_folder, from_pointer, same_encoder
from stackgan_dist.text.own import own_encoder
from stackgan_dist.text.protocol import SentenceEncoder, SentenceError, TextEncoder

__all__ = [
    "ENCODERS", "PUBLISHED", "SentenceEncoder", "SentenceError", "TextEncoder", "check_encoder", "encoder_name",
    "load_encoder", "load_given",
]  # fmt: skip

PUBLISHED = "published"
"""In place of an encoder's name: the embeddings that a data set's publisher gives."""


ENCODERS = {
    "ngrams": "stackgan_dist.text.ngrams:NgramEncoder",
    "minilm": "stackgan_dist.text.minilm:MiniLMEncoder",
}
"""Name -> "module:class"; the class is called without arguments. Trained encoders are files (files.py), those of users
importable names (own.py)."""


def check_encoder(spec: str) -> None:
    """Raises UserError when `spec` is no encoder: a registered name, a trained one's file or folder, MODULE:CLASS."""
    if spec in ENCODERS:
        return
    if _is_own(spec):
        own_encoder(spec)
    else:
        _read_given(spec)


def _is_own(spec: str) -> bool:
    """Whether `spec` is MODULE:CLASS. hf:FOLDER is not, though a folder of the working directory may look like it."""
    return is_importable(spec) and not spec.startswith(PREFIX)


def _read_given(spec: str) -> tuple[bytes, str]:
    """Content and place of the file of the trained encoder `spec`; UserError when it is no encoder at all."""
    if spec == PUBLISHED:
        raise UserError(
            "the embeddings of this data set were published without an encoder for other sentences; to generate from "
            "new sentences, pack it with --encoder minilm and train on that"
        )
    try:
        return read_file(spec)
    except FileNotFoundError:
        if has_file(spec):
            raise UserError(
                f"{spec} is the name of an encoder in a file; give its file, {file_of(spec)}, which lies in "
                "the folder of each data set and run that was made with it"
            ) from None
        raise UserError(
            f"unknown text encoder {spec!r}; known encoders: {', '.join(ENCODERS)}, hf:FOLDER, the files "
            "that stackgan_dist.train_text_encoder writes, and your own as MODULE:CLASS (docs/extending.md)"
        ) from None


def encoder_name(spec: str) -> str:
    """What an index calls the encoder `spec`; UserError as `check_encoder`."""
    if spec == PUBLISHED:
        return spec
    if spec in ENCODERS or _is_own(spec):
        check_encoder(spec)
        return spec
    return name_of(_read_given(spec)[0])


def load_encoder(spec: str, beside: Sequence[FolderLike] = ()) -> TextEncoder:
    """The encoder `spec`: a name of the registry, the file or folder of a trained one, one's own, or an index's name.

    Args:
        spec: which one.
        beside: where an index calls it so: folders that may hold the file of a trained one. One of a user's own is then
            imported only where that is allowed.

    Raises UserError when it is unknown, or what it needs is not there.
    """
    if _is_own(spec):
        if beside:
            check_allowed(spec, f"the index of the data in {' or '.join(map(str, beside))}")
        return own_encoder(spec)
    if spec in ENCODERS:
        encoder: TextEncoder = known_part(ENCODERS[spec])()
        return encoder
    if has_file(spec) and beside:
        data, where = find_file(spec, beside), file_of(spec)
    else:
        data, where = _read_given(spec)
    if pointer := from_pointer(data):
        from stackgan_dist.text.hugging_face import HuggingFaceEncoder

        name, folder = pointer
        if not spec.startswith(PREFIX):  # the digest of one that is given as a folder was made just now
            check_folder(name, folder)
        return HuggingFaceEncoder(folder, name)
    from stackgan_dist.text.char_cnn_rnn import CharCNNRNNEncoder, from_file  # needs torch, which others do not

    return CharCNNRNNEncoder(from_file(data, where), name_of(data))


def load_given(spec: str, name: str) -> TextEncoder:
    """The encoder `spec`, given anew in place of what an index calls `name`; UserError where it is another one."""
    encoder = load_encoder(spec)
    if not same_encoder(encoder.name, name):
        raise UserError(
            f"--encoder {spec} is {encoder.name}, but the run was trained on texts of {name}; give that one"
        )
    return encoder
