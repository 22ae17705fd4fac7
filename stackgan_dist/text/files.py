"""Trained text encoders are files, named by their digest and kept beside whatever was made with them.

The index of a data set names the encoder as char-cnn-rnn-DIGEST. `pack` puts its file, DIGEST in the name, into the
data set's folder, and `train` into the run's: either can be moved or copied, and new sentences still find the encoder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import join, read_bytes
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.text.folders import PREFIX, check_folder, folder_of, from_pointer, is_folder_name, to_pointer

FILE_NAME = "text_encoder.pt"
"""Of an encoder in the folder of its own training."""
_NAME = re.compile(r"char-cnn-rnn-[0-9a-f]{16}")


def has_file(name: str) -> bool:
    """Whether an encoder of this name has a file: its own, or one that says where its folder lies (folders.py)."""
    return _NAME.fullmatch(name) is not None or is_folder_name(name)


def file_of(name: str) -> str:
    """What the file of the encoder `name` is called."""
    return f"{name}.json" if is_folder_name(name) else f"{name}.pt"


def name_of(data: bytes) -> str:
    """The name of the encoder whose file has this content."""
    if pointer := from_pointer(data):
        return pointer[0]
    return f"char-cnn-rnn-{hashlib.sha256(data).hexdigest()[:16]}"


def read_file(spec: str) -> tuple[bytes, str]:
    """Content and place of the encoder's file that `spec` means: itself, or that of the training in the folder `spec`.

    Raises FileNotFoundError when there is none; UserError when it cannot be read.
    """
    if spec.startswith(PREFIX):
        folder = folder_of(spec)
        return to_pointer(folder), str(folder)
    for where in (spec, join(spec, FILE_NAME)):
        try:
            return read_bytes(where), where
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"cannot read the text encoder {where}: {error}") from error
    raise FileNotFoundError(spec)


def find_file(name: str, beside: Sequence[FolderLike]) -> bytes:
    """The content of the file of the encoder `name`, in one of the folders `beside`.

    Raises UserError when it is in none of them, or another one lies there under its name.
    """
    folders = [Folder.at(each) for each in beside]
    for folder in folders:
        file = file_of(name)
        where = folder.url_of(file)
        if is_folder_name(name) and folder.path is not None and (folder.path / name / "config.json").is_file():
            here = folder.path / name
            return to_pointer(here, check_folder(name, here))  # the encoder itself
        try:
            data = folder.read(file, lambda data: name_of(data) == name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"cannot read the text encoder {where}: {error}") from error
        if (found := name_of(data)) != name:
            raise UserError(f"{where} was altered or damaged: its content is that of {found}; restore the file")
        return data
    searched = " and in ".join(map(str, folders)) or "no folder"
    if is_folder_name(name):
        raise UserError(
            f"the text encoder {name} is not there: looked for it, and for {file_of(name)}, in {searched}. Give its "
            f"folder with hf:FOLDER (--encoder), or copy or link it there as {name}"
        )
    raise UserError(
        f"the text encoder {name} is not there: looked for {file_of(name)} in {searched}. "
        "Copy it there from the data set or run that it belongs to, or from its training (there it is called "
        f"{FILE_NAME})"
    )


def keep_file(name: str, data: bytes, into: FolderLike) -> None:
    """Put the file of the encoder `name` into the folder `into`, unless it is there; UserError if it cannot be put."""
    folder, file = Folder.at(into), file_of(name)
    try:
        if not folder.exists(file):
            folder.write(file, data)
    except OSError as error:
        raise UserError(f"cannot write {folder.url_of(file)}: {error.strerror or error}") from error
