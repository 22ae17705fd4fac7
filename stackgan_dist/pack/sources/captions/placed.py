"""From what captions files call the pictures to the pictures that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from stackgan_dist.pack.sources.account import printable
from stackgan_dist.pack.sources.captions.entry import Entry, merged
from stackgan_dist.pack.sources.names import AmbiguousNameError, PictureNames, is_inside


def placed(entries: Iterable[Entry], pictures: PictureNames) -> tuple[list[Entry], dict[str, str]]:
    """(one entry for each picture, by the name that it has there; names that meant it -> that name).

    A name that is exactly a picture's counts before one that only resembles it; one that two names resemble, which
    differ, is neither's. What is not found keeps its name. Entries of the same picture are made one.
    """
    found: dict[str, Entry] = {}
    others: dict[str, Entry] = {}
    for entry in entries:
        name = pictures.exact(entry.file, entry.folder)
        where = found if name else others
        entry = dataclasses.replace(entry, file=name or entry.file)
        where[entry.file] = merged(where[entry.file], entry) if entry.file in where else entry
    meant: dict[str, list[str]] = {}
    for name, entry in others.items():
        try:
            like = pictures.like(name, entry.folder)
        except AmbiguousNameError as error:
            others[name] = dataclasses.replace(entry, fault=entry.fault or str(error))
            continue
        if like is not None:
            meant.setdefault(like, []).append(name)
    resembled = {}
    for picture, names in meant.items():
        if picture not in found and len(names) == 1:
            found[picture] = dataclasses.replace(others.pop(names[0]), file=picture)
            resembled[names[0]] = picture
            continue
        for name in names:
            entry = others[name]
            what = "it in full" if picture in found else "it too"
            fault = f"the picture is missing; {printable(picture)} is like it, but another line names {what}"
            others[name] = dataclasses.replace(entry, fault=entry.fault or fault)
    for name, entry in others.items():
        if not entry.fault and not is_inside(name):
            others[name] = dataclasses.replace(entry, fault=f"the file name, given in {entry.where}, leaves the folder")
    every = found | others
    return [every[name] for name in sorted(every)], resembled
