"""Which split a picture belongs to, where folders or captions files say so. A validation set is never trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.account import Account

SPLITS = ("train", "test", "val")
SPLIT_OF = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
"""What people call the splits, in lower case -> what they are called here."""


def check_split(source: str, split: str) -> None:
    """Raises UserError for a split that `source`, a source of people's own files, does not know."""
    if split not in SPLITS:
        raise UserError(f"{source} has the splits {', '.join(SPLITS)}, not {split!r}; change --splits")


def check_test_fraction(source: str, test_fraction: float) -> None:
    """Raises UserError for a share that leaves `source` nothing to train on, or that is none."""
    if not 0.0 <= test_fraction < 1.0:
        raise UserError(f"{source}: test_fraction is {test_fraction}; it must be at least 0 and below 1")


def split_of(name: str) -> str:
    """The split that the first folder of `name` is called after, or ""."""
    folder, slash, _ = name.partition("/")
    return SPLIT_OF.get(folder.lower(), "") if slash else ""


def split_in_words(base: str) -> str:
    """The split that a word of `base`, a file's own name, is called after, or ""."""
    return next((SPLIT_OF[word] for word in re.findall(r"[a-z]+", base.lower()) if word in SPLIT_OF), "")


def splits_by_folder(names: Sequence[str], account: Account) -> dict[str, str]:
    """Name -> split ("" for none of them), by the folders at the top; empty where these decide nothing.

    They decide where there is one of test or validation. Beside a folder for training, what is in neither is in no
    split; without one, everything else is for training.
    """
    decided = decided_by({name: split_of(name) for name in names}, account)
    if not decided:
        _note_deeper_folders(names, account)
    return decided


def decided_by(chosen: dict[str, str], account: Account) -> dict[str, str]:
    """The splits of what `chosen` gives one or "", as splits_by_folder has it; empty where these decide nothing."""
    known = set(chosen.values())
    if not decides(known):
        return {}
    rest = "" if "train" in known else "train"
    return val_as_test({name: split or rest for name, split in chosen.items()}, account)


def decides(splits: Iterable[str]) -> bool:
    """Whether what is called after `splits` divides a set: training alone, or nothing, does not."""
    return not {"test", "val"}.isdisjoint(splits)


def val_as_test(chosen: dict[str, str], account: Account) -> dict[str, str]:
    """`chosen`, name -> split, with what is for validation as the split test where nothing else is; it is noted."""
    splits = set(chosen.values())
    if "val" not in splits or "test" in splits:
        return chosen
    account.note("The validation pictures are the split test, since there is no other one.")
    return {name: "test" if split == "val" else split for name, split in chosen.items()}


def _note_deeper_folders(names: Sequence[str], account: Account) -> None:
    for name in names:
        folders = name.split("/")[:-1]
        for depth, folder in enumerate(folders[1:], 1):
            if SPLIT_OF.get(folder.lower()) in ("test", "val"):
                above = "/".join(folders[:depth])
                account.note(
                    f"The folder {above}/{folder} decides no split, because it is not directly under --root; "
                    f"end --root with {above} if it should."
                )
                return
