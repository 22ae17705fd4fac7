"""Trained text encoders are files, named by their digest and kept beside whatever was made with them.

The index of a data set names the encoder as char-cnn-rnn-DIGEST. `pack` puts its file, DIGEST in the name, into the
data set's folder, and `train` into the run's: either can be moved or copied, and new sentences still find the encoder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import exists, join, read_bytes, write_bytes

FILE_NAME = "text_encoder.pt"
"""Of an encoder in the folder of its own training."""
_NAME = re.compile(r"char-cnn-rnn-[0-9a-f]{16}")


def is_trained(name: str) -> bool:
    """Whether an index that names its encoder so means a file."""
    return _NAME.fullmatch(name) is not None


def name_of(data: bytes) -> str:
    """The name of the encoder whose file has this content."""
    return f"char-cnn-rnn-{hashlib.sha256(data).hexdigest()[:16]}"


def read_file(spec: str) -> tuple[bytes, str]:
    """Content and place of the encoder's file that `spec` means: itself, or that of the training in the folder `spec`.

    Raises FileNotFoundError when there is none; UserError when it cannot be read.
    """
    for where in (spec, join(spec, FILE_NAME)):
        try:
            return read_bytes(where), where
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"cannot read the text encoder {where}: {error}") from error
    raise FileNotFoundError(spec)


def find_file(name: str, beside: Sequence[str]) -> bytes:
    """The content of the file of the encoder `name`, in one of the folders `beside`.

    Raises UserError when it is in none of them, or another one lies there under its name.
    """
    for folder in beside:
        where = join(folder, f"{name}.pt")
        try:
            data = read_bytes(where, lambda data: name_of(data) == name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"cannot read the text encoder {where}: {error}") from error
        if (found := name_of(data)) != name:
            raise UserError(f"{where} was altered or damaged: its content is that of {found}; restore the file")
        return data
    raise UserError(
        f"the text encoder {name} is not there: looked for {name}.pt in {' and in '.join(beside) or 'no folder'}. "
        "Copy it there from the data set or run that it belongs to, or from its training (there it is called "
        f"{FILE_NAME})"
    )


def keep_file(name: str, data: bytes, folder: str) -> None:
    """Put the file of the encoder `name` into `folder`, unless it is there; UserError when that cannot be done."""
    where = join(folder, f"{name}.pt")
    try:
        if not exists(where):
            write_bytes(where, data)
    except OSError as error:
        raise UserError(f"cannot write {where}: {error.strerror or error}") from error
