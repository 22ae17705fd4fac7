"""Shards that others have made: WebDataset tars such as img2dataset writes, read where they lie.

The root is a folder on any fsspec URL, of `*.tar`, or of `train/*.tar` and `test/*.tar` where they are divided; or a
URL of tars in the braces of webdataset, s3://bucket/{00000..00031}.tar. A sample is the members that share a key
(tar_members.py): a picture, and its captions in `.json` under "captions", "caption" or "text", or else in `.txt` (a
caption a line). A "class" in the JSON, or a `.cls` member, names the class.

Nothing is unpacked; a compressed tar (.tar.gz, .tgz, .tar.bz2, .tar.xz) is only decompressed, beside the listing. Names
that leave the archive, links and devices are rejected, like samples without caption.

Every tar is read once from end to end, to list it, and each picture once more, by its range. What was found in a tar
can be kept: then parts of a pack share this work, and one that is started again does not repeat it.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import json
import lzma
import random
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account, endings_of, of_ending
from stackgan_dist.pack.sources.files import Files, Tree
from stackgan_dist.pack.sources.fit import Fit, check_fit
from stackgan_dist.pack.sources.folder import key_of
from stackgan_dist.pack.sources.names import TARS
from stackgan_dist.pack.sources.splits import check_split, check_test_fraction, splits_by_folder
from stackgan_dist.pack.sources.tar_members import Sample, read_samples
from stackgan_dist.storage.files import exists, open_filesystem
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError, patiently

_TARS_AT_ONCE = 8
_BLOCK_BYTES = 4 * 2**20
_DECOMPRESS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
_LISTING_FORMAT = 2
"""Of what is kept of a tar: one of another format is made anew."""


@dataclass(frozen=True)
class _Found:
    """What a tar holds."""

    records: list[Record]
    others: Counter[str]
    """What its other files are."""


class WebDatasetTars:
    """Tars of pictures with captions.

    Args:
        root: URL of the folder that they are in, or of the tars with the numbers in braces.
        test_fraction: share of the TARS that make the split "test", at least one where there are several and it is
            above 0: the last ones by name. Folders train/, test/ and val/ decide instead where they exist.
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
    """

    def __init__(self, root: str | None, *, test_fraction: float = 0.1, fit: Fit = "crop") -> None:
        self._files = Files(root, "webdataset", "*.tar, or train/*.tar and test/*.tar,")
        self._given: list[str] | None = None
        """Names of the tars, where the root names them and not their folder."""
        if root is not None and root.lower().endswith(TARS):
            folder, self._given = tars_of(root)
            self._files = Files(folder, "webdataset", "the tars")
        check_test_fraction("webdataset", test_fraction)
        check_fit("webdataset", fit)
        self._fit = fit
        self._test_fraction = test_fraction
        self._kept: Folder | None = None
        self._decompressed: dict[str, str] = {}
        """Name of a compressed tar -> name of the tar itself in the kept folder."""
        self._account = Account(0)
        """Of the files under the root."""
        self._in_tars: dict[str, Account] = {}
        """Split -> of the files in its tars."""

    def keep_listing(self, folder: str) -> None:
        """Keep what is found in each tar in `folder`, a URL, and take from there what lies there already."""
        self._kept = Folder.at(folder)

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, in the order of the tars. Raises UserError for a tar that is cut short."""
        check_split("webdataset", split)
        tree = Tree(self._given, {}) if self._given is not None else self._files.tree()
        account = self._account = Account(len(tree.files) + len(tree.others))
        account.others.update(tree.others.values())
        splits = self._splits([name for name in tree.files if name.lower().endswith(TARS)], account)
        if not splits:
            raise UserError(
                f"there are no tars ({', '.join(TARS)}) under {self._files.root}, but {endings_of(tree.files)}; check "
                "--root, or pack pictures that are files with the recipe folder"
            )
        tars = [name for name in splits if splits[name] == split]
        for name in tree.files:
            account.others["tars" if name in splits else of_ending(name)] += 1
        # Parts that begin together each take another order, and find more and more of the tars listed by others.
        order = random.sample(tars, len(tars))
        with ThreadPoolExecutor(_TARS_AT_ONCE) as threads:  # on an object store this is all waiting
            found = dict(zip(order, threads.map(self._list, order), strict=True))
        records = [record for name in tars for record in found[name].records]
        if self._fit == "pad":
            records = [dataclasses.replace(record, pad=True) for record in records]
        others = sum((found[name].others for name in tars), Counter[str]())
        pictures = Counter({split: sum(record.present for record in records)})
        self._in_tars[split] = Account(pictures[split] + others.total(), pictures=pictures, others=others)
        return records

    def account(self, splits: Sequence[str]) -> Account:
        """Of the files under the root, and of those in the tars of `splits`; see AccountingSource."""
        whole = sum((self._in_tars[split] for split in splits), self._account)
        return dataclasses.replace(whole, thing="files, those in the tars among them")

    def picture(self, record: Record) -> bytes:
        """The picture, read out of its tar."""
        assert record.extent is not None
        name, offset, size = record.extent
        folder, tar = self._place(name)
        return folder.read_range(tar, offset, size)

    def _place(self, name: str) -> tuple[Folder, str]:
        """Where the tar called `name` lies, decompressed if it has to be, and its name there."""
        if self._kept is not None and name in self._decompressed:
            return self._kept, self._decompressed[name]
        return self._files.folder, name

    def _splits(self, tars: Sequence[str], account: Account) -> dict[str, str]:
        """Name of each tar -> its split, "" for those in none."""
        by_folder = splits_by_folder(tars, account)
        if by_folder:
            return by_folder
        test = 0
        if self._test_fraction and len(tars) > 1:
            test = min(len(tars) - 1, max(1, round(self._test_fraction * len(tars))))
        return {name: "test" if number >= len(tars) - test else "train" for number, name in enumerate(tars)}

    def _list(self, name: str) -> _Found:
        """What a tar holds, scanned unless its listing is kept."""
        ending = next((ending for ending in _DECOMPRESS if name.lower().endswith(ending)), None)
        if self._kept is None:
            if ending is not None:
                raise ValueError(f"{name} is decompressed into the folder of keep_listing, which was not called")
            return self._scan(name)
        kept = self._digest(name)
        if ending is not None:
            tar = self._decompressed[name] = f"{kept}.tar"
            if not self._kept.exists(tar):
                self._decompress(name, ending, self._kept, tar)
        try:
            content = json.loads(self._kept.read(f"{kept}.json"))
            return _Found([Record(**_with_tuples(fields)) for fields in content["records"]], Counter(content["others"]))
        except (FileNotFoundError, NotADirectoryError):
            found = self._scan(name)
        except (ValueError, TypeError, KeyError) as error:
            where = self._kept.url_of(f"{kept}.json")
            raise UserError(f"{where} is damaged ({error}); remove it, it will be made anew") from error
        listing = {"records": [dataclasses.asdict(record) for record in found.records], "others": found.others}
        self._kept.write(f"{kept}.json", json.dumps(listing).encode())
        return found

    def _digest(self, name: str) -> str:
        """Of a tar's place and state: one that was replaced has other marks."""
        try:
            marks = self._files.folder.marks(name)
        except FileNotFoundError as error:
            raise UserError(f"there is no {self._files.url(name)}; check --root") from error
        return hashlib.sha256(json.dumps([_LISTING_FORMAT, self._files.url(name), *marks]).encode()).hexdigest()

    def _decompress(self, name: str, ending: str, folder: Folder, tar: str) -> None:
        """Put the tar that the compressed one called `name` holds into `folder`, as `tar`."""
        packed_url = self._files.url(name)
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

    def _scan(self, name: str) -> _Found:
        """What the tar called `name` holds."""
        folder, tar_name = self._place(name)
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
                f"{self._files.url(name)} is cut short or not a tar ({error}); download it again, or take it away"
            ) from error
        for sample in found:
            others.update(sample.others)
        return _Found([_record(name, sample) for sample in found], others)


def tars_of(root: str) -> tuple[str, list[str]]:
    """The folder above the tars that `root` names, literally or in braces, and their names in it."""
    urls = [root]
    if "{" in root and not any(mark in root for mark in ("::", "$")) and not exists(root):
        from webdataset.shardlists import expand_urls  # loads torch, which packing needs for nothing else

        urls = expand_urls(root)
    above = root.partition("{")[0] if len(urls) > 1 else root
    folder = above.rpartition("/")[0]
    return folder or ".", sorted(url[len(folder) + 1 :] if folder else url for url in urls)


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


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
