"""Re-reading packed data: every shard against its index, every sample against the format (shards/README.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stackgan_dist.data.index import INDEX_NAME, Index, Shard, load_index, packed_folders
from stackgan_dist.errors import UserError
from stackgan_dist.pack.agreement import compare
from stackgan_dist.pack.balance import BALANCE_NAME, REJECTED_NAME, Balance, Ledger
from stackgan_dist.pack.pool import AbandonedError, OnPicture, run_tasks
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.files import has_file

_MEMBERS = ("emb.npy", "jpg", "json")


@dataclass(frozen=True)
class _Task:
    folder: Folder
    index: Index
    """Without its shards and classes, which a task does not need."""
    classes: frozenset[str]
    shard: Shard


@dataclass(frozen=True)
class _Found:
    faults: tuple[str, ...]
    keys: tuple[str, ...]
    faulty: int
    """Samples with a fault of their own."""


def verify(url: str, workers: int) -> None:
    """Print every fault of the data sets at and below `url`, how much was read, and what else lies there.

    Raises UserError when there is any fault.
    """
    faults = 0
    indices: dict[str, Index] = {}
    pictures: Counter[str] = Counter()
    order: dict[str, dict[int, list[str]]] = {}
    for below, folder in packed_folders(Folder.at(url)).items():
        index = load_index(folder)
        indices[below] = index
        found, keys, faulty = _verify_one(folder, index, workers)
        pictures.update({"whole": len(keys) - faulty, "with a fault": faulty})
        pictures["missing"] += max(0, index.samples - len(keys))
        pictures["that the index does not count"] += max(0, len(keys) - index.samples)
        for fault in found:
            print(f"{folder}/{fault}", flush=True)
        order.setdefault(index.split, {})[index.image_size] = keys
        faults += len(found)
        megabytes = sum(shard.bytes for shard in index.shards) / 1e6
        print(
            f"verified {below or folder}: {len(index.shards)} shards, {index.samples} pictures, {megabytes:.1f} MB, "
            f"{len(found)} faults",
            flush=True,
        )
    for split, sizes in order.items():
        if len({tuple(keys) for keys in sizes.values()}) > 1:
            print(
                f"{url}: the sizes {sorted(sizes)} of {split} hold different samples, or in another order", flush=True
            )
            faults += 1
    above = 2 - min(
        len(below.split("/")) if below else 0 for below in indices
    )  # a split or a size may be verified alone
    out = url.rstrip("/").rsplit("/", above)[0] if above else url
    agreement = compare(
        out, list(indices.values()), {split: set().union(*sizes.values()) for split, sizes in order.items()}
    )
    for line in agreement.remarks + agreement.faults:
        print(f"{url}: {line}", flush=True)
    faults += len(agreement.faults)
    names = Files(url, "verify", "a packed data set").names()
    kinds = Counter(_kind_of(name, indices) for name in names)
    expected = sum(index.samples for index in indices.values()) + pictures["that the index does not count"]
    balance = Balance(
        url,
        (Ledger("files", len(names), dict(sorted(kinds.items()))), Ledger("pictures", expected, +pictures)),
        (),
    )
    print(balance, flush=True)
    balance.check()
    if faults:
        raise UserError(f"{url} has {faults} faults; they are listed above. Pack it again with --overwrite")


def _kind_of(name: str, indices: Mapping[str, Index]) -> str:
    """What a file under a packed set is."""
    folder, _, base = name.rpartition("/")
    if base == INDEX_NAME:
        return "indices" if folder in indices else "indices of sets that lie deeper than verify looks"
    if base.endswith(".tar"):
        is_listed = folder in indices and base in {shard.name for shard in indices[folder].shards}
        return "shards" if is_listed else "tars that no index lists"
    if base in (REJECTED_NAME, BALANCE_NAME):
        return base
    return "text encoders" if has_file(base.rpartition(".")[0]) else "others, which pack does not write"


def _verify_one(folder: Folder, index: Index, workers: int) -> tuple[list[str], list[str], int]:
    """(faults, keys in the order of the shards, samples with faults) of one data set."""
    names = {shard.name for shard in index.shards}
    stray = [name for name in folder.names() if name.endswith(".tar") and name not in names]
    faults = [f"{name}: it is not in the index" for name in stray]
    bare = dataclasses.replace(index, shards=(), classes=())
    tasks = [_Task(folder, bare, frozenset(index.classes), shard) for shard in index.shards]
    found: dict[int, _Found] = {}
    if tasks:
        for number, result in run_tasks(verify_shard, tasks, index.samples, workers, f"verify {folder}"):
            found[number] = result
    seen: dict[str, str] = {}
    for number, shard in enumerate(index.shards):
        faults += found[number].faults
        for key in found[number].keys:
            if key in seen:
                faults.append(f"{shard.name}: the sample {key} is in {seen[key]} too")
            seen[key] = shard.name
    keys = [key for number in range(len(tasks)) for key in found[number].keys]
    return faults, keys, sum(one.faulty for one in found.values())


def verify_shard(task: _Task, on_picture: OnPicture = lambda: True) -> _Found:
    """Read one shard whole."""
    shard, faults = task.shard, []
    keys: list[str] = []
    faulty = 0
    try:
        with task.folder.local_copy(shard.name) as path:
            size = path.stat().st_size
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if size != shard.bytes:
                kind = "truncated" if size < shard.bytes else "altered"
                faults.append(f"{kind}: {size} bytes, the index says {shard.bytes}")
            elif digest != shard.sha256:
                faults.append(f"altered: its sha256 is {digest[:16]}..., the index says {shard.sha256[:16]}...")
            try:
                for key, members, fault in _samples(path):
                    reasons = [fault] if fault else _sample_faults(task, members)
                    faults += [f"{key}: {reason}" for reason in reasons]
                    faulty += bool(reasons)
                    keys.append(key)
                    if not on_picture():
                        raise AbandonedError
            except (tarfile.TarError, OSError) as error:
                faults.append(f"unreadable after {len(keys)} samples: {error}")
            if len(keys) != shard.samples:
                faults.append(f"it holds {len(keys)} samples, the index says {shard.samples}")
    except AbandonedError:
        raise
    except FileNotFoundError:
        faults.append("missing")
    except Exception as error:  # every store has its own family of errors
        faults.append(f"cannot be read: {type(error).__name__}: {error}")
    return _Found(tuple(f"{shard.name}: {fault}" for fault in faults), tuple(keys), faulty)


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes], str]]:
    """(key, members, fault) of the samples of a tar, as they come."""
    seen: set[str] = set()
    key, fault = "", ""
    members: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name, _, extension = member.name.partition(".")
            if name != key and key:
                yield key, members, fault
                members, fault = {}, ""
            if name != key and name in seen:
                fault = "it comes twice"
            key = name
            seen.add(name)
            if not member.isreg() or "/" in member.name:
                fault = fault or f"{member.name} is not a plain file of the shard"
            elif extension in members:
                fault = fault or f".{extension} comes twice"
            else:
                file = tar.extractfile(member)
                members[extension] = file.read() if file is not None else b""
        if key:
            yield key, members, fault
        with path.open("rb") as file:
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends without its end mark: truncated")


def _sample_faults(task: _Task, members: dict[str, bytes]) -> list[str]:
    index = task.index
    missing = [f"has no .{extension}" for extension in _MEMBERS if extension not in members]
    if missing:
        return missing
    faults = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(io.BytesIO(members["jpg"]), formats=("JPEG",))
            image.load()
        if (image.size, image.mode) != ((index.image_size, index.image_size), "RGB"):
            faults.append(f"its picture is {image.width} x {image.height} {image.mode}, not {index.image_size} px RGB")
    except Exception as error:  # decoders have exceptions of their own
        faults.append(f"its picture cannot be decoded: {type(error).__name__}: {error}")
    try:
        rows = np.load(io.BytesIO(members["emb.npy"]), allow_pickle=False)
        if rows.shape != (index.captions_per_image, index.text_dim) or rows.dtype != np.float16:
            expected = (index.captions_per_image, index.text_dim)
            faults.append(f"its embeddings are {rows.dtype} {rows.shape}, not float16 {expected}")
        elif not np.isfinite(rows).all():
            faults.append("its embeddings are not finite")
    except Exception as error:
        faults.append(f"its embeddings cannot be read: {type(error).__name__}: {error}")
    try:
        meta = json.loads(members["json"])
        if len(meta["captions"]) != index.captions_per_image or not all(isinstance(c, str) for c in meta["captions"]):
            faults.append(f"it has {len(meta['captions'])} captions, not {index.captions_per_image}")
        if "class" in meta and meta["class"] not in task.classes:
            faults.append(f"its class {meta['class']!r} is not in the index")
    except (ValueError, KeyError, TypeError) as error:
        faults.append(f"its JSON cannot be read: {type(error).__name__}: {error}")
    return faults
