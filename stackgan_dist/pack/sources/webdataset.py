"""Shards that others have made: WebDataset tars such as img2dataset writes, read where they lie.

The root is a folder on any fsspec URL, of `*.tar`, or of `train/*.tar` and `test/*.tar` where they are divided; or a
URL of tars in the braces of webdataset, s3://bucket/{00000..00031}.tar. A sample is the members that share a key
(tar_members.py): a picture, and its captions in `.json` under "captions", "caption" or "text", or else in `.txt` (a
caption a line). A "class" in the JSON, or a `.cls` member, names the class.

Nothing is unpacked; a compressed tar (.tar.gz, .tgz, .tar.bz2, .tar.xz) is only decompressed, beside the listing. Names
that leave the archive, links and devices are rejected, like samples without caption.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account
from stackgan_dist.pack.sources.containers import Containers, Found
from stackgan_dist.pack.sources.files import Files, Tree
from stackgan_dist.pack.sources.fit import Fit
from stackgan_dist.pack.sources.names import TARS, key_of
from stackgan_dist.pack.sources.splits import splits_by_folder
from stackgan_dist.pack.sources.tar_members import Sample, read_samples
from stackgan_dist.storage.files import exists, open_filesystem
from stackgan_dist.storage.retry import StoreError, patiently

_BLOCK_BYTES = 4 * 2**20
_DECOMPRESS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}


class WebDatasetTars(Containers):
    """Tars of pictures with captions.

    Args:
        root: URL of the folder that they are in, or of the tars with the numbers in braces.
        test_fraction: share of the TARS that make the split "test", at least one where there are several and it is
            above 0: the last ones by name. Folders train/, test/ and val/ decide instead where they exist.
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
    """

    source = "webdataset"
    thing = "tars"
    endings = TARS

    def __init__(self, root: str | None, *, test_fraction: float = 0.1, fit: Fit = "crop") -> None:
        files = Files(root, self.source, "*.tar, or train/*.tar and test/*.tar,")
        self._given: list[str] | None = None
        """Names of the tars, where the root names them and not their folder."""
        if root is not None and root.lower().endswith(TARS):
            folder, self._given = tars_of(root)
            files = Files(folder, self.source, "the tars")
        super().__init__(files, test_fraction, fit)

    def _tree(self) -> Tree:
        return super()._tree() if self._given is None else Tree(self._given, {})

    def _splits(self, names: Sequence[str], account: Account) -> dict[str, str]:
        by_folder = splits_by_folder(names, account)
        if by_folder:
            return by_folder
        test = 0
        if self._test_fraction and len(names) > 1:
            test = min(len(names) - 1, max(1, round(self._test_fraction * len(names))))
        return {name: "test" if number >= len(names) - test else "train" for number, name in enumerate(names)}

    def _unpacked_ending(self, name: str) -> str:
        return ".tar" if _compressed(name) else ""

    def _decompress(self, name: str) -> None:
        """Put the tar that the compressed one called `name` holds where it is read."""
        folder, tar = self._place(name)
        packed_url, ending = self._files.url(name), _compressed(name)
        fs, path = open_filesystem(packed_url)

        def copy(file: BinaryIO) -> None:
            with fs.open(path, "rb", block_size=_BLOCK_BYTES) as packed, _DECOMPRESS[ending](packed) as plain:
                shutil.copyfileobj(plain, file, _BLOCK_BYTES)

        try:
            if self._files.folder.path is not None:
                folder.write_file(tar, copy)
            else:
                patiently(f"decompress {packed_url}", lambda: folder.write_file(tar, copy))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the content's
                raise
            raise UserError(
                f"{packed_url} is cut short or not compressed as its name says ({error}); download it again, or take "
                "it away"
            ) from error

    def _scan(self, name: str) -> Found:
        """See Containers."""
        folder, tar_name = self._place(name)
        if name in self._unpacked and not folder.exists(tar_name):
            self._decompress(name)
        url = folder.url_of(tar_name)
        fs, path = open_filesystem(url)

        def samples() -> tuple[list[Sample], Counter[str]]:
            with fs.open(path, "rb", block_size=_BLOCK_BYTES) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = read_samples(tar)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it ends without its end mark")
            return found

        try:
            found, others = samples() if folder.path is not None else patiently(f"list {url}", samples)
        except FileNotFoundError as error:
            raise UserError(f"there is no {self._files.url(name)}; check --root") from error
        except (tarfile.TarError, OSError, StoreError) as error:
            if isinstance(error, StoreError) and not isinstance(error.__context__, tarfile.TarError):
                raise
            raise UserError(
                f"{self._files.url(name)} is cut short or not a tar ({error}); download it again, or remove it"
            ) from error
        for sample in found:
            others.update(sample.others)
        return Found([_record(name, sample) for sample in found], others)


def _compressed(name: str) -> str:
    """The ending by which the tar called `name` is compressed, "" where it is not."""
    return next((ending for ending in _DECOMPRESS if name.lower().endswith(ending)), "")


def tars_of(root: str) -> tuple[str, list[str]]:
    """The folder above the tars that `root` names, literally or in braces, and their names in it."""
    urls = [root]
    if "{" in root and not any(mark in root for mark in ("::", "$")) and not exists(root):
        from webdataset.shardlists import expand_urls  # loads torch, which packing needs for nothing else

        urls = expand_urls(root)
    above = root.partition("{")[0] if len(urls) > 1 else root
    folder = above.rpartition("/")[0]
    return folder or ".", sorted(url[len(folder) + 1 :] if folder else url for url in urls)


def _record(tar: str, sample: Sample) -> Record:
    fault = sample.fault
    if not fault and sample.picture is None:
        fault = "the sample has no picture"
    member, offset, size = sample.picture or (sample.key, 0, 0)
    return Record(
        key=key_of(sample.key),
        captions=sample.captions,
        class_name=sample.class_name,
        source_id=f"{tar}/{member}",
        extent=(tar, offset, size),
        fault=fault,
        present=sample.picture is not None,
    )
