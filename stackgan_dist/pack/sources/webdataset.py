"""Shards that others have made: WebDataset tars such as img2dataset writes, read where they lie.

Layout under the root, a folder on any fsspec URL: `*.tar`, or `train/*.tar` and `test/*.tar` where they are divided.
A sample is the members that share a key: a picture (`.jpg`, ...), and its captions in `.txt` (a caption a line) or
in `.json` under "captions", "caption" or "text". A "class" in the JSON, or a `.cls` member, names the class.

Nothing is unpacked. Names that leave the archive, links and devices are rejected, like samples without caption.

Every tar is read once from end to end, to list it, and each picture once more, by its range. What was found in a tar
can be kept: then parts of a pack share this work, and one that is started again does not repeat it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.files import Files, is_inside
from stackgan_dist.pack.sources.folder import PICTURES, SPLITS, key_of, one_line
from stackgan_dist.storage.files import local_path, open_filesystem
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError, patiently

_TARS_AT_ONCE = 8
_BLOCK_BYTES = 4 * 2**20
_LONGEST_TEXT_BYTES = 2**20


class WebDatasetTars:
    """A folder of tars.

    Args:
        root: its URL.
        test_fraction: share of the TARS that make the split "test", at least one where there are several and it is
            above 0: the last ones by name. Folders train/ and test/ decide instead where they exist.
    """

    def __init__(self, root: str | None, *, test_fraction: float = 0.1) -> None:
        self._files = Files(root, "webdataset", "*.tar, or train/*.tar and test/*.tar,")
        if not 0.0 <= test_fraction < 1.0:
            raise UserError(f"webdataset: test_fraction is {test_fraction}; it must be at least 0 and below 1")
        self._test_fraction = test_fraction
        self._kept: Folder | None = None

    def keep_listing(self, folder: str) -> None:
        """Keep what is found in each tar in `folder`, a URL, and take from there what lies there already."""
        self._kept = Folder.at(folder)

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, in the order of the tars. Raises UserError for a tar that is cut short."""
        if split not in SPLITS:
            raise UserError(f'webdataset has the splits "train" and "test", not {split!r}; change --splits')
        tars = self._tars(split)
        if not tars:
            raise UserError(
                f"no *.tar of the split {split!r} under {self._files.root}; give a higher test_fraction, or leave the "
                "split out with --splits"
            )
        # Parts that begin together each take another order, and find more and more of the tars listed by others.
        order = random.sample(tars, len(tars))
        with ThreadPoolExecutor(_TARS_AT_ONCE) as threads:  # on an object store this is all waiting
            found = dict(zip(order, threads.map(self._list, order), strict=True))
        return [record for name in tars for record in found[name]]

    def picture(self, record: Record) -> bytes:
        """The picture, read out of its tar."""
        assert record.extent is not None
        name, offset, size = record.extent
        return self._files.folder.read_range(name, offset, size)

    def _tars(self, split: str) -> list[str]:
        tars = [name for name in self._files.names() if name.endswith(".tar")]
        if any(name.startswith("train/") for name in tars) and any(name.startswith("test/") for name in tars):
            return [name for name in tars if name.startswith(f"{split}/")]
        test = 0
        if self._test_fraction and len(tars) > 1:
            test = min(len(tars) - 1, max(1, round(self._test_fraction * len(tars))))
        return tars[len(tars) - test :] if split == "test" else tars[: len(tars) - test]

    def _list(self, name: str) -> list[Record]:
        """The records of a tar, scanned unless its listing is kept."""
        if self._kept is None:
            return self._scan(name)
        marks = self._files.folder.marks(name)  # of a tar that was replaced they are others
        digest = hashlib.sha256(json.dumps([self._files.url(name), *marks]).encode()).hexdigest()
        kept = f"{digest}.json"
        try:
            return [Record(**_with_tuples(fields)) for fields in json.loads(self._kept.read(kept))]
        except (FileNotFoundError, NotADirectoryError):
            records = self._scan(name)
        except (ValueError, TypeError) as error:
            where = self._kept.url_of(kept)
            raise UserError(f"{where} is damaged ({error}); remove it, it will be made anew") from error
        self._kept.write(kept, json.dumps([dataclasses.asdict(record) for record in records]).encode())
        return records

    def _scan(self, name: str) -> list[Record]:
        url = self._files.url(name)
        fs, path = open_filesystem(url)

        def samples() -> dict[str, _Sample]:
            with fs.open(path, "rb", block_size=_BLOCK_BYTES) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = _samples(tar)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it ends without its end mark")
            return found

        try:
            found = samples() if local_path(url) else patiently(f"list {url}", samples)
        except (tarfile.TarError, OSError, StoreError) as error:
            if isinstance(error, StoreError) and not isinstance(error.__context__, tarfile.TarError):
                raise
            raise UserError(
                f"{url} is cut short or not an uncompressed tar ({error}); download it again, or take it away"
            ) from error
        return [_record(name, key, sample) for key, sample in found.items()]


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


class _Sample:
    """What is known of one sample."""

    def __init__(self) -> None:
        self.picture: tuple[str, int, int] | None = None
        self.captions: list[str] = []
        self.class_name = ""
        self.fault = ""


def _samples(tar: tarfile.TarFile) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for member in tar:
        if member.isdir():
            continue
        folder, _, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
        try:
            _add(sample, member, extension.lower(), tar)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            sample.fault = sample.fault or f"{member.name}: {error}"
    return samples


def _add(sample: _Sample, member: tarfile.TarInfo, extension: str, tar: tarfile.TarFile) -> None:
    if not is_inside(member.name):
        raise ValueError("the name leaves the archive")
    if not member.isreg():
        raise ValueError("it is a link or a device, not a file")
    if f".{extension}" in PICTURES:
        if sample.picture is not None:
            raise ValueError("a second picture of the sample")
        sample.picture = (member.name, member.offset_data, member.size)
    elif extension == "txt":
        sample.captions = list(_lines(_text(tar, member)))  # what a person would read goes before the JSON
    elif extension == "cls":
        sample.class_name = one_line(_text(tar, member))
    elif extension == "json":
        content: dict[str, Any] = json.loads(_text(tar, member))
        given: Any = next((content[name] for name in ("captions", "caption", "text") if content.get(name)), [])
        sample.captions = sample.captions or list(_lines(given if isinstance(given, str) else "\n".join(given)))
        sample.class_name = sample.class_name or one_line(str(content.get("class", "")))


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _LONGEST_TEXT_BYTES:
        raise ValueError(f"a text of {member.size} bytes")
    file = tar.extractfile(member)
    assert file is not None
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def _lines(text: str) -> Iterator[str]:
    return (caption for line in text.splitlines() if (caption := one_line(line)))


def _record(tar: str, key: str, sample: _Sample) -> Record:
    fault = sample.fault
    if not fault and sample.picture is None:
        fault = "the sample has no picture"
    member, offset, size = sample.picture or (key, 0, 0)
    return Record(
        key=key_of(key),
        captions=tuple(sample.captions),
        class_name=sample.class_name,
        source_id=f"{tar}/{member}",
        extent=(tar, offset, size),
        fault=fault,
    )
