"""A classifier for a data set's own classes: `torchrun -m stackgan_dist.train_classifier --data data/oxford102`.

Takes a network that knows ImageNet, fits its last layer to the classes of a packed set and, with --epochs, trains all
layers on from there, on any number of ranks, then says how many held-out pictures it classifies correctly. The file it
writes is a --classifier of the scores. The StackGAN paper fine-tunes on the test classes, those that its pictures are
generated for, and so does this by default; the files that it used are lost, so scores stand only beside scores of the
same file.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from stackgan_dist.classifiers.classifier import NetworkClassifier, load_classifier, read_record
from stackgan_dist.classifiers.fine_tuning import FineTuning
from stackgan_dist.classifiers.labelled_pictures import LabelledPictures
from stackgan_dist.classifiers.linear_head import fit_head
from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.distributed.collectives import one_thread_per_rank, sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks, main_first, process_group
from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ImageSize
from stackgan_dist.overlap import made_ahead
from stackgan_dist.ranges import Range, Seed, Timeout
from stackgan_dist.runs.checkpoint import to_bytes
from stackgan_dist.storage.files import on_this_disk, write_bytes

_PROTOCOLS = {
    "test": "fine-tuned on the test classes, those that scores generate pictures for, as in the paper's protocol",
    "train": "fine-tuned on the training classes, unlike the paper's protocol, which takes the test classes",
}

_RECORD = ".json"
_NOT_RECORDED = ("data", "out", "overwrite", "timeout_s")
"""Options that do not decide what the file becomes, or are recorded otherwise."""


@dataclass(frozen=True)
class Options:
    """What to train, and on what."""

    data: str = "data/painted"
    """The packed data set whose classes are to be recognised."""
    split: Literal["test", "train"] = "test"
    """The split to learn from. The paper fine-tunes on the test classes."""
    image_size: ImageSize = 128
    """The side of the crops in pixels, which is that of the pictures to be scored."""
    network: str = "efficientnet-lite0"
    """The network to start from: efficientnet-lite0, or an Inception-v3 weights file, as for --classifier."""
    out: str | None = None
    """The file to write, which is new; a .json of the same name, which says what it is, is written beside it. The
    default is classifiers/DATA-SPLIT.pt."""
    overwrite: bool = False
    """Replace the file and the .json beside it where they exist. Scores that were made with the old file say so by its
    digest, and cannot be made again without it."""
    held_out: Annotated[float, Range(above=0, below=1)] = 0.2
    """The share of the pictures that it does not learn from, to be tested on."""
    views: Annotated[int, Range(at_least=1)] = 4
    """The number of views of a picture to learn from: its middle, and crops at random, some mirrored."""
    decay: Annotated[float, Range(above=0)] = 0.01
    """The weight decay of the last layer, whose features are scaled to a deviation of 1; without any there may be no
    best solution."""
    epochs: Annotated[int, Range(at_least=0)] = 0
    """After the last layer, all layers are trained for this many passes over the pictures; 0 trains the last layer
    alone."""
    learning_rate: Annotated[float, Range(above=0)] = 3e-5
    """The learning rate of the training of all layers, at its start."""
    seed: Seed = 0
    """The seed chooses the held-out pictures, the crops and the order of --epochs."""
    batch_size: Annotated[int, Range(at_least=1)] = 64
    """The number of pictures in a batch of all ranks. The last layer does not depend on it."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost."""


@front_door
def main() -> None:
    """Parse, validate, connect, look at all pictures, fit the last layer, perhaps train all, test, write."""
    options = parse_options(Options, "train_classifier", __doc__)
    packed = open_packed(DataConfig(url=options.data), options.image_size, options.split)
    LabelledPictures(packed.captions(), options.image_size, 1, options.held_out, options.seed)
    settings = _settings(options, packed, _base(options, "cpu"))
    out = _out(options, packed)

    with process_group(options.timeout_s) as ranks:
        if not options.overwrite:
            main_first(lambda: _check_new(out, settings), ranks)
        one_thread_per_rank(ranks)
        base = _base(options, ranks.device)
        pictures = LabelledPictures(
            packed.captions(), options.image_size, options.batch_size, options.held_out, options.seed
        )
        numbers, features, labels, held_out = _look_at_all(pictures, base, options.views, ranks)
        head = fit_head(
            features[~held_out].to(ranks.device),
            labels[~held_out].to(ranks.device),
            len(pictures.classes),
            options.decay,
            lambda tensor: sum_over_ranks(tensor, ranks),
        )
        base.replace_last_layer(*head)
        if options.epochs:
            _train_all_layers(options, base, pictures, numbers[~held_out], ranks)
            _, features, labels, held_out = _look_at_all(pictures, base, 1, ranks)
        right, tested = _tested(base, features[held_out], labels[held_out], ranks)
        main_first(lambda: _write(out, base, _record(settings, right, tested)), ranks)

        if ranks.is_main:
            print(f"{right / max(tested, 1):.1%} of {tested:,} held-out pictures of {packed.url} classified correctly")
            print(f"  {len(pictures.classes)} classes, chance {1 / len(pictures.classes):.1%}")
            layers = f"the last layer from {options.views} views"
            layers += f" and all from {options.epochs} more" if options.epochs else ""
            print(f"  learned {layers} of each of the other {len(pictures) - tested:,} pictures")
            print(f"  {_PROTOCOLS[options.split]}\n  use it: --classifier '{out}{_query(options.network)}'")


def _out(options: Options, packed: PackedSet) -> Path:
    """The file to write; UserError where --out cannot be one."""
    default = f"classifiers/{packed.index.name}-{options.split}.pt"
    out = on_this_disk(options.out or default, "--out", "--classifier reads files of a disk")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the file to write, such as {out / 'birds.pt'}")
    if out.suffix.lower() == _RECORD:
        raise UserError(f"--out {out} is the name of what is recorded beside the weights; give one that ends in .pt")
    return out


def _check_new(out: Path, settings: Mapping[str, Any]) -> None:
    """UserError where the weights, or something else in the place of what is recorded beside them, are there already.

    A record of these very settings without weights is what a call left that was killed before it wrote them.
    """
    record = out.with_suffix(_RECORD)
    there = [str(file) for file in (out, record) if os.path.lexists(file)]
    begun = {name: value for name, value in read_record(out).items() if name in settings}
    if there and not (there == [str(record)] and begun == json.loads(json.dumps(settings))):
        raise UserError(
            f"{' and '.join(there)} would be replaced, and scores are bound to a classifier's very file; give another "
            "--out, or say --overwrite"
        )


def _base(options: Options, device: torch.device | str) -> NetworkClassifier:
    base = load_classifier(options.network, device)
    if base.details.get("pooling") == "fid":
        raise UserError(
            f"{options.network} is the FID network, whose file says by its outputs how it pools: start from "
            "torchvision's Inception-v3 or from efficientnet-lite0"
        )
    return base


def _query(network: str) -> str:
    """What --classifier has to know of an Inception-v3 beside its weights."""
    _, mark, query = network.partition("?")
    kept = [part for part in query.split("&") if part.startswith("pooling=")]
    return mark + "&".join(kept) if kept else ""


def _look_at_all(
    pictures: LabelledPictures, base: NetworkClassifier, views: int, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers (n,), features (n, width), labels (n,) and whether held out (n,), on the CPU.

    One row for every view of this rank's pictures.
    """
    numbers, labels, held_out = [torch.empty(0).long()], [torch.empty(0).long()], [torch.empty(0).bool()]
    features = [torch.empty(0, base.feature_width)]
    batches = made_ahead(pictures.views(views, ranks.rank, ranks.world_size), ranks.device)
    for batch in with_progress(batches, "pictures", len(pictures) * views, ranks):
        numbers.append(batch.numbers)
        features.append(base.features(batch.images).cpu())
        labels.append(batch.labels)
        held_out.append(batch.held_out)
    return torch.cat(numbers), torch.cat(features), torch.cat(labels), torch.cat(held_out)


def _train_all_layers(
    options: Options, base: NetworkClassifier, pictures: LabelledPictures, learned: Tensor, ranks: Ranks
) -> None:
    """`learned`: numbers of this rank's pictures to learn from, each at least once."""
    is_learned = torch.zeros(len(pictures))
    is_learned[learned] = 1
    sum_over_ranks(is_learned, ranks)
    tuning = FineTuning(options.epochs, options.learning_rate, options.batch_size, options.seed)
    tuning.run(base, pictures, is_learned.nonzero().flatten(), ranks)


def _tested(base: NetworkClassifier, features: Tensor, labels: Tensor, ranks: Ranks) -> tuple[int, int]:
    """Held-out pictures that are classified correctly, and all of them."""
    right = (base.last_layer(features.to(base.device)).argmax(dim=1).cpu() == labels).sum()
    counts = torch.stack([right, torch.tensor(len(labels))]).double()
    sum_over_ranks(counts, ranks)
    return int(counts[0]), int(counts[1])


def _record(settings: Mapping[str, Any], right: int, tested: int) -> dict[str, Any]:
    """What is recorded about the file, beside it and in every score made with it."""
    return {
        "held_out_accuracy": right / max(tested, 1),
        "held_out_pictures": tested,
        **settings,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _settings(options: Options, packed: PackedSet, base: NetworkClassifier) -> dict[str, Any]:
    """All that decides what the file becomes."""
    return {
        "protocol": _PROTOCOLS[options.split],
        "data": packed.index.name,
        "data_digest": packed.index.digest,
        "classes": list(packed.index.classes),
        "started_from": base.weights_sha256,
        **{name: value for name, value in asdict(options).items() if name not in _NOT_RECORDED},
    }


def _write(out: Path, base: NetworkClassifier, record: dict[str, Any]) -> None:
    """The weights as a bare state dict, and before them the record beside them: weights are never there without it."""
    state = base.module.state_dict()
    weights = {name: value.cpu().contiguous() for name, value in state.items() if not name.startswith("AuxLogits.")}
    data = to_bytes(weights)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        record = {**record, "weights_sha256": hashlib.sha256(data).hexdigest()}
        write_bytes(str(out.with_suffix(_RECORD)), (json.dumps(record, indent=1) + "\n").encode())
        write_bytes(str(out), data)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; give another file with --out") from error


if __name__ == "__main__":
    main()
