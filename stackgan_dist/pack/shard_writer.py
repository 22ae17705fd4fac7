"""One shard, packed: what a packing process does. Its bytes depend on the task alone, not on who does it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.data.index import Shard
from stackgan_dist.errors import UserError
from stackgan_dist.pack.claim import check_claim
from stackgan_dist.pack.pictures import Frame, PictureError, encode_jpeg, load_picture
from stackgan_dist.pack.pool import AbandonedError, OnPicture
from stackgan_dist.pack.sources import Record, Source
from stackgan_dist.storage.durable import new_file, sync
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text import SentenceError, TextEncoder, load_encoder

TEMPORARY_SUFFIX = ".tar.tmp"

_PICTURES_AT_ONCE = 16
"""Captions of so many pictures are encoded together: enough to fill batches, few enough to show progress."""
_READ_AHEAD = 16
"""Pictures that are read, by as many threads, while others are encoded: an object store answers each after a while."""


@dataclass(frozen=True)
class Task:
    """What one shard is made of."""

    source: Source
    records: tuple[Record, ...]
    text_encoder: str | None
    """The encoder, a name or a file; None: the embeddings are given."""
    embeddings: tuple[NDArray[np.float16], ...]
    """Given ones of the records, (captions, dim) each."""
    folders: tuple[tuple[int, Folder], ...]
    """(side of the squares in pixels, the folder), one tar for each."""
    name: str
    """File name of the tars."""
    identity: str = ""
    """Of the pack for which the folders are claimed; "": of none, and they are not looked at."""


@dataclass(frozen=True)
class Packed:
    """What became of a task."""

    shards: dict[int, Shard]
    """Side of the squares -> its shard; empty when every picture was rejected."""
    text_dim: int
    classes: frozenset[str]
    """Without the pictures that have none."""
    distinct_classes: int
    """How many classes there are for the drawing of wrong texts: a picture without class is one of its own."""
    rejected: tuple[dict[str, str], ...]
    """`rejection` of every picture that cannot be used."""
    enlarged: Mapping[int, int]
    """Side of the squares -> how many pictures are smaller than these."""


def rejection(record: Record, reason: str) -> dict[str, str]:
    """A line of rejected.jsonl."""
    return {"key": record.key, "id": record.source_id, "reason": reason}


def pack_shard(task: Task, on_picture: OnPicture = lambda: True) -> Packed:
    """Write the tars of `task`, the same samples in the same order at every size.

    `on_picture` is called after every picture; when it answers False, the shard is abandoned.

    Raises:
        UserError: the encoder is not installed, a folder cannot be written to, or another pack writes there.
        AbandonedError: `on_picture` said so.
    """
    encoder = _encoder(task.text_encoder) if task.text_encoder is not None else None
    rejected: list[dict[str, str]] = []
    kept: list[Record] = []
    enlarged = dict.fromkeys((size for size, _ in task.folders), 0)
    with ExitStack() as stack:
        parts = {size: stack.enter_context(temporary_tar(folder, task.name)) for size, folder in task.folders}
        tars = {
            size: stack.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
            for size, path in parts.items()
        }
        opened = stack.enter_context(_read_ahead(task))
        for record, embeddings in _embedded(task, encoder):
            try:
                found = next(opened)
                if isinstance(embeddings, SentenceError):
                    raise PictureError(str(embeddings))
                if isinstance(found, PictureError):
                    raise found
                image = load_picture(found)
                frame = Frame.of(image, record.crop, pad=record.pad)
            except PictureError as error:
                rejected.append(rejection(record, str(error)))
            else:
                kept.append(record)
                for size, tar in tars.items():
                    enlarged[size] += min(frame.width, frame.height) < size
                    _add_sample(tar, record, frame, encode_jpeg(frame.resample(image, size)), embeddings)
            if not on_picture():
                raise AbandonedError
        for tar in tars.values():
            tar.close()
        shards = {}
        for size, folder in task.folders if kept else ():
            if task.identity:  # at the last moment: what lies there may by now be another pack's
                check_claim(folder, task.identity)
            shards[size] = publish_tar(parts[size], folder, task.name, len(kept))
    return Packed(
        shards=shards,
        text_dim=task.embeddings[0].shape[1] if encoder is None else encoder.dim,
        classes=frozenset(record.class_name for record in kept if record.class_name),
        distinct_classes=len({record.class_name or record.key for record in kept}),
        rejected=tuple(rejected),
        enlarged=enlarged,
    )


@functools.cache
def _encoder(spec: str) -> TextEncoder:
    encoder = load_encoder(spec)
    if "torch" in sys.modules:
        # There is a process per core already; and how a sum is split among threads decides its last bit.
        sys.modules["torch"].set_num_threads(1)
    return encoder


def _embedded(task: Task, encoder: TextEncoder | None) -> Iterator[tuple[Record, NDArray[np.float16] | SentenceError]]:
    """The records with their embeddings, or with the reason why a caption has none."""
    if encoder is None:
        yield from zip(task.records, task.embeddings, strict=True)
        return
    for start in range(0, len(task.records), _PICTURES_AT_ONCE):
        chunk = task.records[start : start + _PICTURES_AT_ONCE]
        try:
            rows = encoder.encode([caption for record in chunk for caption in record.captions]).astype(np.float16)
        except SentenceError:
            yield from ((record, _encoded_alone(record, encoder)) for record in chunk)
        else:
            ends = np.cumsum([len(record.captions) for record in chunk])
            yield from zip(chunk, np.split(rows, ends[:-1]), strict=True)


def _encoded_alone(record: Record, encoder: TextEncoder) -> NDArray[np.float16] | SentenceError:
    try:
        return encoder.encode(record.captions).astype(np.float16)
    except SentenceError as error:
        return error


@contextmanager
def _read_ahead(task: Task) -> Iterator[Iterator[bytes | Image.Image | PictureError]]:
    """The pictures of the records in their order, or why one cannot be read."""
    with ThreadPoolExecutor(_READ_AHEAD) as threads:
        waiting = deque(threads.submit(_opened, task.source, record) for record in task.records[:_READ_AHEAD])

        def pictures() -> Iterator[bytes | Image.Image | PictureError]:
            for record in [*task.records[_READ_AHEAD:], *[None] * len(waiting)]:
                found = waiting.popleft().result()
                if record is not None:
                    waiting.append(threads.submit(_opened, task.source, record))
                yield found

        try:
            yield pictures()
        finally:
            threads.shutdown(cancel_futures=True)


def _opened(source: Source, record: Record) -> bytes | Image.Image | PictureError:
    try:
        return source.picture(record)
    except OSError as error:  # missing, unreadable, or not a picture
        return PictureError(f"{type(error).__name__}: {error}")


def _add_sample(
    tar: tarfile.TarFile, record: Record, frame: Frame, jpeg: bytes, embeddings: NDArray[np.float16]
) -> None:
    array = io.BytesIO()
    np.save(array, embeddings)
    meta = json.dumps(_meta(record, frame), sort_keys=True, ensure_ascii=False)
    add_members(tar, record.key, {"emb.npy": array.getvalue(), "jpg": jpeg, "json": meta.encode()})


def add_members(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Append a sample, given as {extension: content}."""
    for extension, data in members.items():
        # A fresh TarInfo has owner 0, no names, mode 0644 and time 0: equal samples are equal bytes.
        member = tarfile.TarInfo(f"{key}.{extension}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _meta(record: Record, frame: Frame) -> dict[str, Any]:
    meta: dict[str, Any] = {"captions": record.captions, "id": record.source_id}
    if record.class_name:
        meta["class"] = record.class_name
    if record.box is not None and (box := frame.box(*record.box)) is not None:
        meta["box"] = [round(number, 6) for number in box]
    points = {name: frame.point(x, y) for name, (x, y) in record.keypoints.items()}
    inside = {name: [round(number, 6) for number in point] for name, point in points.items() if point is not None}
    if inside:
        meta["keypoints"] = inside
    if record.attributes:
        meta["attributes"] = dict(record.attributes)
    return meta


@contextmanager
def temporary_tar(folder: Folder, name: str) -> Iterator[Path]:
    """A file to write to, beside its destination if that is local (so that it can be renamed); gone afterwards."""
    beside, prefix = folder.path, f".{Path(name).stem}."
    try:
        if beside is None:  # nobody but its owner reads it there
            handle, path = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY_SUFFIX)
            os.close(handle)
            part = Path(path)
        else:
            beside.mkdir(parents=True, exist_ok=True)
            with new_file(beside, prefix, TEMPORARY_SUFFIX) as file:
                part = Path(file.name)
    except OSError as error:
        raise UserError(f"cannot write to {beside or tempfile.gettempdir()}: {error.strerror}; change --out") from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def publish_tar(part: Path, folder: Folder, name: str, samples: int) -> Shard:
    """Put the finished tar `part` into `folder` as `name`, whole or not at all; returns its entry for the index.

    Raises UserError where another pack has finished in the folder, and removed the tar.
    """
    try:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            sync(file.fileno(), part.parent)
        shard = Shard(name=name, bytes=part.stat().st_size, sha256=digest, samples=samples)
        folder.move_in(part, name)
    except FileNotFoundError as error:
        raise UserError(
            f"{part} was removed before it became {name}: another pack has written to {folder} at the same time. Wait "
            "until nothing else writes there, and pack again"
        ) from error
    return shard
