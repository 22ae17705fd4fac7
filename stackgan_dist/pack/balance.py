"""The balance with which every pack ends: what was found, what was taken, and why not the rest.

It is made of three things that were counted apart: what the source found, what its listing gave, and what the index
and the list of rejected pictures hold at the end. A ledger that does not add up is an error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.listing import Listing, Tally
from stackgan_dist.pack.sources import AccountingSource, Source
from stackgan_dist.pack.sources.account import Account, printable
from stackgan_dist.storage.folder import Folder

BALANCE_NAME = "balance.json"
"""Beside the splits."""
REJECTED_NAME = "rejected.jsonl"
"""In the folder of each split that has any."""
_NOT_LISTED = "rejected by an earlier pack, which rejected.jsonl no longer lists"


@dataclass(frozen=True)
class Ledger:
    """Things of one kind: how many were found, and what became of them."""

    thing: str
    found: int
    lines: Mapping[str, int]

    def check(self) -> None:
        """Raises UserError unless the lines add up to what was found."""
        total = sum(self.lines.values())
        if total != self.found:
            raise UserError(
                f"the balance does not add up: {self.found} {self.thing} were found, {total} are accounted for; were "
                "they changed while they were packed? Pack them again with --overwrite"
            )


@dataclass(frozen=True)
class Balance:
    """What became of everything that a data set was packed from."""

    name: str
    ledgers: tuple[Ledger, ...]
    notes: tuple[str, ...]

    def check(self) -> None:
        """Raises UserError unless every ledger adds up."""
        for ledger in self.ledgers:
            ledger.check()

    def __str__(self) -> str:
        lines = []
        for ledger in self.ledgers:
            lines.append(f"balance of {self.name}: {ledger.found:,} {ledger.thing}")
            lines += [f"{count:>9,} {what}" for what, count in ledger.lines.items()]
        return printable("\n".join([*lines, *self.notes]))

    def to_bytes(self) -> bytes:
        """As JSON, for programs."""
        ledgers = [{"thing": one.thing, "found": one.found, "lines": dict(one.lines)} for one in self.ledgers]
        return (json.dumps({"name": self.name, "ledgers": ledgers, "notes": self.notes}, indent=1) + "\n").encode()


@dataclass(frozen=True)
class PackedSplit:
    """What became of one split."""

    name: str
    listing: Listing
    samples: int
    """In its index."""
    rejected: Sequence[dict[str, str]]
    """The lines of its rejected.jsonl."""


def read_split(name: str, listing: Listing, folder: Folder, size: int) -> PackedSplit:
    """What has become of the split in `folder`, whether by this pack or by an earlier one."""
    index = load_index(folder / str(size))
    try:
        lines = folder.read(REJECTED_NAME).decode().splitlines()
    except FileNotFoundError:
        lines = []
    return PackedSplit(name, listing, index.samples, [json.loads(line) for line in lines])


def account_of(source: Source, listings: Mapping[str, Listing]) -> Account:
    """What `source` found, or where it gives no account of that, the pictures that it listed, by split.

    Raises UserError when the two are of different pictures.
    """
    listed = {split: listing.tally.pictures for split, listing in listings.items()}
    if not isinstance(source, AccountingSource):
        return Account(sum(listed.values()), "pictures", Counter(listed))
    account = source.account(list(listings))
    for split, pictures in listed.items():
        if account.pictures[split] != pictures:
            raise UserError(
                f"{split}: {pictures} pictures were listed, {account.pictures[split]} a moment later; wait until the "
                "folder is complete, and pack it again"
            )
    return account


def balance_of(name: str, account: Account, splits: Sequence[PackedSplit]) -> Balance:
    """The balance of a data set of which `splits` are packed."""
    files: Counter[str] = Counter()
    captions: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    for split in splits:
        files.update(_files(split))
        captions.update(_captions(split))
        missing.update(f"in {split.name}: {_kind(entry)}" for entry in split.listing.tally.absent)
    done = {split.name for split in splits}
    for other in sorted(set(account.pictures) - done):
        files[f"in the split {other}, which --splits does not name"] += account.pictures[other]
    files.update(dict(sorted(account.others.items())))
    tallies = [split.listing.tally for split in splits]
    ledgers = [Ledger(account.thing, account.found, _without_zeros(files))]
    if given := sum(map(_given_captions, tallies)):
        ledgers.append(Ledger("captions", given, _without_zeros(captions)))
    if absent := sum(len(tally.absent) for tally in tallies):
        ledgers.append(Ledger("rejected that stand for no picture", absent, missing))
    return Balance(name, tuple(ledgers), tuple(account.notes))


def _given_captions(tally: Tally) -> int:
    return sum(tally.captions) + tally.rejected_captions + tally.captions_beyond_limit


def _files(split: PackedSplit) -> Counter[str]:
    listing = split.listing
    rejected = Counter(map(_line, split.rejected)) - Counter(map(_line, listing.tally.absent))
    kinds = Counter(_kind(json.loads(line)) for line in rejected.elements())
    unlisted = 0 if split.rejected else len(listing.records) + len(listing.rejected) - split.samples
    return Counter(
        {
            f"packed as {split.name}": split.samples,
            **{f"rejected from {split.name}: {kind}": count for kind, count in kinds.most_common()},
            f"{_NOT_LISTED} ({split.name})": unlisted,
            f"beyond --limit in {split.name}": listing.tally.beyond_limit,
        }
    )


def _captions(split: PackedSplit) -> Counter[str]:
    listing, tally = split.listing, split.listing.tally
    while_packing = Counter(map(_line, split.rejected)) - Counter(map(_line, listing.rejected))
    keys = {json.loads(line)["key"] for line in while_packing}
    given = {record.key: count for record, count in zip(listing.records, tally.captions, strict=True)}
    kept = {key: min(count, listing.captions_per_image) for key, count in given.items() if key not in keys}
    return Counter(
        {
            f"packed as {split.name}": sum(kept.values()),
            f"dropped from {split.name}: more than {listing.captions_per_image} of a picture (captions_per_image)": sum(
                given[key] - count for key, count in kept.items()
            ),
            f"of pictures rejected from {split.name}": tally.rejected_captions + sum(given[key] for key in keys),
            f"beyond --limit in {split.name}": tally.captions_beyond_limit,
        }
    )


def _line(entry: dict[str, str]) -> str:
    return json.dumps(entry, sort_keys=True)


def _kind(entry: dict[str, str]) -> str:
    """The reason of a rejection without what it says of this picture alone: its name, and numbers."""
    name, reason = entry["id"], entry["reason"]
    for own in (name, name.rpartition(".")[0], name.rpartition("/")[2]):
        if own:  # as a whole: the stem of e.png is in many words
            reason = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "NAME", reason)
    return re.sub(r"(?<!UTF-)\d+", "N", reason)


def _without_zeros(lines: Counter[str]) -> dict[str, int]:
    return {what: count for what, count in lines.items() if count}
