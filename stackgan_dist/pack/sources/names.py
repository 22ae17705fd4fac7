"""Names of files as people and programs write them, and the files that they mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import PurePosixPath

from stackgan_dist.pack.pictures import ENDINGS
from stackgan_dist.pack.sources.account import some_names

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Endings of tars, compressed or not, in lower case."""
PARQUET = (".parquet",)


class Names:
    """The names that are there, whichever way their accents are written.

    A Mac stores "é" as two characters (NFD) where captions have one (NFC); both mean the same file.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._normal: dict[str, list[str]] = {}
        for name in self._names:
            if not name.isascii():
                self._normal.setdefault(_composed(name), []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def find(self, name: str) -> str | None:
        """The name of the file that `name` means, None where there is none, or more than one."""
        if name in self._names:
            return name
        found = self._normal.get(_composed(name), []) if not name.isascii() else []
        return found[0] if len(found) == 1 else None


class AmbiguousNameError(ValueError):
    """A name that may mean several files; its text says which."""


class PictureNames:
    """The pictures that are there, by what a captions file calls them: without their folder or ending, in other case.

    "a.jpg" and "a" mean images/a.jpg where no other picture is called so. Of "Old/a.jpg" the folder counts only if
    there is one of that name: people move their pictures, and captions keep the place where they were written.
    """

    def __init__(self, pictures: Iterable[str]) -> None:
        names = sorted(pictures)
        self._exact = Names(names)
        self._by_stem: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        for name in names:
            *folders, base = _folded(name)
            self._by_stem.setdefault(_stem(base), []).append(name)
            self._folders.update(folders)

    def exact(self, name: str, folder: str = "") -> str | None:
        """The picture that is called `name`, as from `folder` (of the captions file) or as from the root."""
        plain = _plain(name)
        beside = self._exact.find(f"{folder}/{plain}") if folder else None
        return beside or self._exact.find(name) or self._exact.find(plain)

    def like(self, name: str, folder: str = "") -> str | None:
        """The only picture that `name` can mean; one below `folder` rather than others.

        Raises AmbiguousNameError where there are several.
        """
        *folders, base = _folded(_plain(name)) or [""]
        while folders and folders[0] not in self._folders:
            del folders[0]
        without_ending = _stem(base) == base
        found = []
        for picture in self._by_stem.get(_stem(base), []):
            *there, called = _folded(picture)
            if (without_ending or called == base) and _ends_alike(folders, there):
                found.append(picture)
        below = [picture for picture in found if folder and picture.startswith(f"{folder}/")]
        found = below or found
        if len(found) > 1:
            raise AmbiguousNameError(
                f"the name {name!r} may mean {some_names(found)}; write it with its folder and ending"
            )
        return found[0] if found else None


def is_inside(name: str) -> bool:
    """Whether a relative name given by a foreign file stays below the folder that it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder that it is in, is hidden."""
    return any(part.startswith(".") for part in name.split("/"))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    """`name` with slashes between its parts and without those that mean nothing."""
    return str(PurePosixPath(name.replace("\\", "/")))


def _folded(name: str) -> list[str]:
    """The parts of `name`, without those that lead upwards, as they are compared."""
    return [_composed(part).casefold() for part in name.split("/") if part not in ("", ".", "..")]


def _stem(base: str) -> str:
    """`base`, a file's own name, without the ending of a picture."""
    stem, dot, ending = base.rpartition(".")
    return stem if stem and f"{dot}{ending}" in ENDINGS else base


def _ends_alike(one: list[str], other: list[str]) -> bool:
    """Whether the shorter of two lists of folders is the end of the longer one."""
    least = min(len(one), len(other))
    return one[len(one) - least :] == other[len(other) - least :]


def key_of(name: str) -> str:
    """A key for the file `name`: readable, and different for different names."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePosixPath(name).stem)[:60]
    return f"{readable}-{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def fraction_of(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest()) / 2**48
