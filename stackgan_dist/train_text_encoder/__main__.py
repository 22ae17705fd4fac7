"""Train the paper's own text encoder: `torchrun -m stackgan_dist.train_text_encoder --data data/oxford102`.

A char-CNN-RNN learns, from the captions of a packed set, to agree with the features of their pictures (structured joint
embedding, Reed et al., arXiv 1605.05395), on any number of ranks. It is then asked for the pictures of classes that it
has not seen. What it writes is an --encoder for `pack`. With `--encoder minilm` that encoder stays as it is, the map of
the pictures alone is learned, by the same loss: what to compare with.

Starting it again goes on where it stopped; where it has finished, it is evaluated once more.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import numpy as np
import torch

from stackgan_dist import __version__
from stackgan_dist.classifiers.classifier import NetworkClassifier, load_classifier
from stackgan_dist.cli.doors import end_preempted, front_door, parse_options
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.pack_command import pack_command
from stackgan_dist.distributed.agreement import check_agreement, code_digest
from stackgan_dist.distributed.collectives import one_thread_per_rank
from stackgan_dist.distributed.environment import ranks_from_environment
from stackgan_dist.distributed.process_group import Ranks, main_first, process_group
from stackgan_dist.distributed.stop import listen_for_stop
from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ImageSize
from stackgan_dist.ranges import Range, Timeout
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.keeper import WritePolicy
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text import TextEncoder, load_encoder
from stackgan_dist.text.char_cnn_rnn import CharCNNRNNEncoder, to_file
from stackgan_dist.text.files import FILE_NAME, name_of
from stackgan_dist.train_text_encoder.batches import ClassBatches
from stackgan_dist.train_text_encoder.contents import Pictures, embedded_captions, look_at_pictures, spelled_captions
from stackgan_dist.train_text_encoder.retrieval import Retrieval, retrieval
from stackgan_dist.train_text_encoder.training import EncoderIdentity, EncoderTraining, Learning, learn, take_newest

TRAINED = "char-cnn-rnn"


@dataclass(frozen=True)
class RunOptions:
    """Where a training writes, and how often. Changes nothing in the mathematics."""

    name: str | None = None
    """The name of the training, which is written to FOLDER/NAME; that folder is what `pack --encoder` takes. The
    default is DATA-ENCODER."""
    folder: str = "encoders"
    """The folder of all trainings, or a URL; the features of the pictures are kept in it for all of them."""
    tick_steps: Annotated[int, Range(at_least=1)] = 50
    """The number of steps between two status lines, rows of metrics.jsonl and points in TensorBoard."""
    checkpoint_steps: Annotated[int, Range(at_least=1)] = 500
    """The number of steps between two checkpoints; one more is written when the training ends or is stopped."""
    keep_last: Annotated[int, Range(at_least=1)] = 2
    """This many of the newest checkpoints are kept."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost, and the training stops (to be started
    again)."""


@dataclass(frozen=True)
class Options:
    """What to train, and on what."""

    data: str = "data/painted"
    """The packed data set, with classes, by any encoder: its captions and pictures count, its embeddings do not (unless
    they are those of --encoder, which then need not be made again)."""
    encoder: str = TRAINED
    """char-cnn-rnn trains one. Any other encoder (minilm, ngrams, a trained one's folder) stays as it is, and a linear
    map of the pictures' features is fitted to it."""
    evaluate: bool = False
    """Do not train; evaluate the newest checkpoint."""
    image_size: ImageSize = 128
    """The side in pixels of the crops that the classifier looks at."""
    views: Annotated[int, Range(at_least=1)] = 4
    """The number of views of a training picture: its middle, and crops at random, some mirrored."""
    classifier: str = "efficientnet-lite0"
    """The classifier whose features of the pictures are learned from, as for the scores."""
    recipe: EncoderTraining = field(default_factory=EncoderTraining)
    run: RunOptions = field(default_factory=RunOptions)


@front_door
def main() -> None:
    """Parse, validate, connect, look at the pictures, train, evaluate, write."""
    options = parse_options(Options, "train_text_encoder", __doc__)
    _check(options)
    train_set, test_set = (
        open_packed(DataConfig(url=options.data), options.image_size, split) for split in ("train", "test")
    )
    for packed in (train_set, test_set):
        if len(packed.index.classes) < 2:
            raise UserError(
                f"a joint embedding tells classes apart, and {packed.url} names {len(packed.index.classes)}; pack it "
                "with classes (docs/own_data.md)"
            )
    frozen = load_encoder(options.encoder) if options.encoder != TRAINED else None
    name = options.run.name or f"{train_set.index.name}-{frozen.name if frozen else TRAINED}"
    folder = RunFolder(Folder.at(options.run.folder) / name)
    load_classifier(options.classifier)

    run = options.run
    with process_group(run.timeout_s) as ranks, ExitStack() as owning:
        one_thread_per_rank(ranks)
        classifier = load_classifier(options.classifier, ranks.device)
        pictures = _look(options, train_set, options.views, classifier, ranks)
        texts = embedded_captions(train_set, frozen, ranks) if frozen else spelled_captions(train_set)
        batches = ClassBatches(
            pictures.labels,
            options.views,
            texts.shape[1],
            min(options.recipe.batch_size, len(np.unique(pictures.labels))),
            options.recipe.seed,
        )
        if ranks.world_size > batches.batch_size:
            raise UserError(f"{ranks.world_size} ranks share {batches.batch_size} classes; start fewer")
        learning = Learning(options.recipe, batches, pictures.features, texts, frozen is not None, ranks)
        identity = EncoderIdentity.of(
            options.recipe,
            data=train_set.index.digest,
            encoder=frozen.name if frozen else TRAINED,
            image_size=options.image_size,
            views=options.views,
            classifier=classifier.weights_sha256,
        )
        check_agreement({**identity.values, "version": f"{__version__} ({code_digest()})"}, ranks)
        with listen_for_stop() as stop:  # only here is there something to save first

            def own() -> None:
                owning.enter_context(folder.owned(min(60.0, run.timeout_s / 2), stop.ask, folder.refuse_foreign))

            main_first(own, ranks)
            if options.evaluate:
                take_newest(learning, identity, folder, ranks)
            else:
                writes = WritePolicy(run.tick_steps, run.checkpoint_steps, run.keep_last)
                description = _describe(options, train_set, batches, ranks)
                if learn(learning, writes, identity, description, folder, ranks, stop) == "PREEMPTED":
                    end_preempted()
                    return

        # What it has learned, tried on classes that it has not seen.
        encoder: TextEncoder
        data = b""
        if learning.network.text is not None:
            data = to_file(learning.network.text)
            encoder = CharCNNRNNEncoder(learning.network.text, name_of(data))
        else:
            assert frozen is not None
            encoder = frozen
        unseen = _look(options, test_set, 1, classifier, ranks)
        held_out = embedded_captions(test_set, encoder, ranks).numpy()
        with torch.inference_mode():
            mapped = learning.network.map_images(unseen.features[:, 0].to(ranks.device)).float().cpu().numpy()
        found = retrieval(mapped, unseen.labels, held_out)
        if ranks.is_main:
            record = _record(options, train_set, test_set, encoder, classifier, found)
            _write(folder, data, record)
            _report(folder, train_set, test_set, encoder, found, is_trained=frozen is None)


def _check(options: Options) -> None:
    options.recipe.validate(ranks_from_environment().world_size)
    if (folder := options.run.folder).startswith(("http://", "https://")):
        raise UserError(f"--run.folder is {folder}, which can only be read; give a folder, or s3://, gs://, az://")


def _look(options: Options, packed: PackedSet, views: int, classifier: NetworkClassifier, ranks: Ranks) -> Pictures:
    return look_at_pictures(
        packed, options.image_size, views, options.recipe.seed, classifier, options.run.folder, ranks
    )


def _describe(options: Options, packed: PackedSet, batches: ClassBatches, ranks: Ranks) -> str:
    index = packed.index
    return (
        f"{options.encoder} on {packed.url} ({index.samples:,} pictures of {len(index.classes)} classes, "
        f"{index.captions_per_image} captions each), {ranks.world_size} rank(s) on {ranks.device.type}, "
        f"{batches.batch_size} classes a step, {options.recipe.steps:,} steps"
    )


def _known_classes(train_set: PackedSet, test_set: PackedSet) -> list[str]:
    return sorted({*train_set.index.classes} & {*test_set.index.classes})


def _record(
    options: Options,
    train_set: PackedSet,
    test_set: PackedSet,
    encoder: TextEncoder,
    classifier: NetworkClassifier,
    found: Retrieval,
) -> dict[str, Any]:
    """What is recorded about the encoder, beside it."""
    return {
        "encoder": encoder.name,
        "dim": encoder.dim,
        "retrieval": asdict(found),
        "data": train_set.index.name,
        "data_digests": [train_set.index.digest, test_set.index.digest],
        "test_classes_trained_on": len(_known_classes(train_set, test_set)),
        "classifier": classifier.describe(),
        "options": dataclasses.asdict(options),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _write(folder: RunFolder, encoder: bytes, record: dict[str, Any]) -> None:
    try:
        if encoder:
            folder.root.write(FILE_NAME, encoder)
        folder.root.write("retrieval.json", (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"cannot write to {folder.url}: {error.strerror or error}; free space and start again"
        ) from error


def _report(
    folder: RunFolder,
    train_set: PackedSet,
    test_set: PackedSet,
    encoder: TextEncoder,
    found: Retrieval,
    is_trained: bool,
) -> None:
    index = test_set.index
    print(f"{encoder.name} on {test_set.url}: {index.samples:,} pictures of {len(index.classes)} classes")
    if known := _known_classes(train_set, test_set):
        print(f"  NOT held out: {len(known)} of these classes were trained on, such as {known[0]!r}")
    for line in found.lines():
        print(f"  {line}")
    print(f"  recorded in {folder.root.url_of('retrieval.json')}")
    if is_trained:
        out = f"{train_set.url.rsplit('/', 2)[0]}-{encoder.name}"
        like, splits = train_set.index, [train_set.index.split, index.split]
        print(f"  use it:\n  {pack_command(out, like, [like.image_size], splits, encoder=folder.url)}")


if __name__ == "__main__":
    main()
