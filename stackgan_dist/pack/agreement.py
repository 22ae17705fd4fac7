"""Whether the splits and sizes of a packed data set are of one making: a model trained on one is tested on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from stackgan_dist.data.index import Index
from stackgan_dist.data.pack_command import pack_command
from stackgan_dist.pack.sources import CLASS_DISJOINT
from stackgan_dist.pack.sources.account import some_names
from stackgan_dist.text.folders import same_encoder


@dataclass(frozen=True)
class Agreement:
    """What differs between the indices of a set."""

    faults: tuple[str, ...]
    """With the command that mends each."""
    remarks: tuple[str, ...]
    """What may be meant so."""


def compare(out: str, indices: Sequence[Index], keys: Mapping[str, Set[str]]) -> Agreement:
    """Compare `indices`, of the set at `out`, with the first of the split train; `keys` are those of each split."""
    ordered = sorted(indices, key=lambda index: (index.split != "train", index.split, index.image_size))
    first = ordered[0]
    faults, remarks = [], []
    for other in ordered[1:]:
        names = f"{first.split}/{first.image_size} and {other.split}/{other.image_size}"
        again = _command(out, first, other)
        for what, one, two in _made_by(first, other):
            if one != two:
                faults.append(
                    f"{names} differ in the {what}: {one!r} and {two!r}. Pack the second as the first:\n  {again}"
                )
        if first.captions_per_image != other.captions_per_image:
            remarks.append(
                f"{names} hold {first.captions_per_image} and {other.captions_per_image} captions of each picture; "
                "captions_per_image in a recipe makes them equal"
            )
        if first.recipe.get("options") != other.recipe.get("options"):
            remarks.append(
                f"{names} were packed with the options {first.recipe.get('options')} and {other.recipe.get('options')}"
            )
    one_of_each = {index.split: index for index in reversed(ordered)}
    for split, index in sorted(one_of_each.items()):
        if split == first.split:
            continue
        again = _command(out, first, index)
        shared = keys.get(first.split, set()) & keys.get(split, set())
        if shared and index.recipe.get("source") != "webdataset":  # whose keys are only unique in a tar
            faults.append(
                f"{len(shared)} pictures are in {first.split} and in {split}: {some_names(sorted(shared))}. Pack both "
                f"with the same options:\n  {again}"
            )
        if classes := sorted({*first.classes} & {*index.classes}):
            said = (
                f"{first.split} and {split} share {len(classes)} of {len(index.classes)} classes: {some_names(classes)}"
            )
            if index.recipe.get("source") in CLASS_DISJOINT:
                faults.append(f"{said}, but the splits of {index.recipe['source']} share none. Pack again:\n  {again}")
            else:
                remarks.append(said)
    return Agreement(tuple(faults), tuple(remarks))


def _command(out: str, first: Index, other: Index) -> str:
    return pack_command(out, first, [other.image_size], [other.split], overwrite=True)


def _made_by(first: Index, other: Index) -> list[tuple[str, object, object]]:
    encoder = first.text_encoder if same_encoder(first.text_encoder, other.text_encoder) else other.text_encoder
    made = [
        ("name", first.name, other.name),
        ("text encoder", first.text_encoder, encoder),
        ("width of the embeddings", first.text_dim, other.text_dim),
    ]
    if first.recipe and other.recipe:
        made.append(("source", first.recipe.get("source"), other.recipe.get("source")))
    return made
