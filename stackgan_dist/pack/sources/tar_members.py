"""Which members of a foreign tar make a sample, and what a sample's members say.

The format (webdataset's) has a key end at the first dot of a name. People's names have dots: "Mr. Smith, v0.0
final.jpg". So a key ends at the ending of a picture or of words, looked for from the end; only what finds no partner
that way is joined to a shorter key: "s0.input.jpg" to "s0.txt". Beside a picture "s0.jpg" that is one more of the same
sample, a mask perhaps, and not read.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stackgan_dist.pack.pictures import ENDINGS
from stackgan_dist.pack.sources.account import of_ending
from stackgan_dist.pack.sources.captions.entry import given_captions, given_name, kind, one_line
from stackgan_dist.pack.sources.names import is_inside

_WORDS = (".json", ".txt", ".cls")
_LONGEST_TEXT_BYTES = 2**20
_EXTENSION = re.compile(r"\w+")


@dataclass
class Sample:
    """What is known of one sample."""

    key: str
    picture: tuple[str, int, int] | None = None
    """(member, offset, bytes)."""
    captions: tuple[str, ...] = ()
    class_name: str = ""
    fault: str = ""
    others: Counter[str] = field(default_factory=Counter)
    """What its members are besides the picture."""


def read_samples(tar: tarfile.TarFile) -> tuple[list[Sample], Counter[str]]:
    """The samples of `tar` in the order of their keys' first members, and what its other files are."""
    # It loads torch, which packing needs for nothing else.
    from webdataset.tariterators import group_by_keys

    members = [member for member in tar if not member.isdir()]
    keys = keys_of([member.name for member in members])
    order: dict[str, int] = {}
    for key, _ in keys.values():
        order.setdefault(key, len(order))
    inside = [member for member in members if member.name in keys]
    inside.sort(key=lambda member: order[keys[member.name][0]])  # a sample's members need not be neighbours
    twice: list[str] = []

    def note(error: Exception) -> bool:
        twice.append(str(error.args[0]))
        return True

    files = ({"fname": member.name, "data": member, "__url__": ""} for member in inside)
    samples = []
    for group in group_by_keys(files, keys=keys.__getitem__, handler=note):
        sample = Sample(group["__key__"])
        if twice:
            sample.fault = f"{twice[0].partition(': duplicate')[0]} comes twice"
            sample.others["members that come twice"] += len(twice)
            twice.clear()
        _read_members({ending: group[ending] for ending in group if not ending.startswith("__")}, tar, sample)
        samples.append(sample)
    return samples, Counter(map(_why_outside, (member.name for member in members if member.name not in keys)))


def _why_outside(name: str) -> str:
    return "hidden: their names begin with a dot" if _is_hidden(name) else of_ending(name)


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def keys_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name -> (key, the rest of it in lower case), of the members that are pictures or words."""
    stems = {name: name[: -len(ending)] for name in names if (ending := _ending(name))}
    pictures = {stem for name, stem in stems.items() if _ending(name) in ENDINGS}
    words = {stem for name, stem in stems.items() if _ending(name) in _WORDS}
    keys = {}
    for name, stem in stems.items():
        key = stem
        if not (stem in pictures and stem in words):
            key = next((short for short in _shorter(stem) if short in pictures or short in words), stem)
        keys[name] = (key, name[len(key) + 1 :].lower())
    return keys


def _ending(name: str) -> str:
    """The known ending of `name`, in lower case, or ""."""
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    ending = f".{extension.lower()}" if dot and not _is_hidden(name) else ""
    return ending if ending in ENDINGS or ending in _WORDS else ""


def _shorter(stem: str) -> Iterator[str]:
    """`stem` without its last extension, and the one before it, and so on."""
    while True:
        stem, dot, extension = stem.rpartition(".")
        if not dot or not stem or "/" in extension or not _EXTENSION.fullmatch(extension):
            return
        yield stem


def _read_members(members: Mapping[str, tarfile.TarInfo], tar: tarfile.TarFile, sample: Sample) -> None:
    """Fill `sample` from its `members`, {what follows the key: member}. Captions are the JSON's where it gives any."""
    has_picture = any(f".{ending}" in ENDINGS for ending in members)
    has_words = any(f".{ending}" in _WORDS for ending in members)
    # The JSON first; the order of the rest is the tar's.
    for ending, member in sorted(members.items(), key=lambda item: not item[0].endswith("json")):
        known = f".{ending.rpartition('.')[2]}"
        if "." in ending and (has_picture if known in ENDINGS else has_words):
            sample.others[f"of the ending .{ending}, beside a sample's own"] += 1
            continue
        try:
            _read_member(known, member, tar, sample)
        except (ValueError, TypeError, RecursionError) as error:
            sample.fault = sample.fault or f"{member.name}: {error}"


def _read_member(ending: str, member: tarfile.TarInfo, tar: tarfile.TarFile, sample: Sample) -> None:
    if not is_inside(member.name):
        sample.others["with names that leave the archive"] += 1
        raise ValueError("the name leaves the archive")
    if not member.isreg():
        sample.others["links or devices"] += 1
        raise ValueError("it is a link or a device, not a file")
    if ending in ENDINGS:
        if sample.picture is not None:
            sample.others["second pictures of a sample"] += 1
            raise ValueError("a second picture of the sample")
        sample.picture = (member.name, member.offset_data, member.size)
        return
    sample.others["with words: .txt, .json or .cls"] += 1
    text = _text(tar, member)
    if ending == ".json":
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError(f"it is {kind(content)}, not an object")
        sample.captions = given_captions(content)
        sample.class_name = given_name(content, "class")
    elif ending == ".cls":
        sample.class_name = one_line(text) or sample.class_name
    elif not sample.captions:
        sample.captions = tuple(caption for line in text.splitlines() if (caption := one_line(line)))


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _LONGEST_TEXT_BYTES:
        raise ValueError(f"a text of {member.size} bytes")
    file = tar.extractfile(member)
    assert file is not None
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
