"""Scores of pictures that another system generated, by the same sums, ranks and rows as those of a run."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, get_args

import tyro

from stackgan_dist.config import DataConfig
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.index import INDEX_NAME, stored_size
from stackgan_dist.data.pictures import PicturesOfClasses, RealPictures
from stackgan_dist.distributed.collectives import one_thread_per_rank
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.errors import UserError
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.models.config import ImageSize
from stackgan_dist.pack.sources.names import TARS
from stackgan_dist.ranges import Range, Seed, Timeout
from stackgan_dist.runs.score_rows import append_score
from stackgan_dist.scores.comparison import RealSet
from stackgan_dist.scores.cost import announce
from stackgan_dist.scores.diversity import diversity_of_classes, diversity_of_files
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.measure import scores_of
from stackgan_dist.scores.picture_files import Fit, PictureFiles
from stackgan_dist.scores.picture_sums import PictureSums
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.r_precision import ClipCandidates
from stackgan_dist.scores.real_side import PictureSource, Recipe, kept_folder, measure_real_side
from stackgan_dist.scores.rows import report_rows
from stackgan_dist.scores.screen import as_text
from stackgan_dist.scores.statistics_file import GivenMoments, read_statistics, statistics_bytes
from stackgan_dist.storage.files import exists, join, read_bytes, write_bytes
from stackgan_dist.storage.folder import Folder

_STATISTICS = ".npz"


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures to score, against which, and how."""

    pictures: str
    """The pictures: a folder or URL of them (PNG, JPEG, ...), or WebDataset tars, perhaps numbered as in
    {000..009}.tar."""
    against: str
    """The real pictures: a packed data set, a folder or tars, or a statistics file (.npz) of pytorch-fid or clean-fid
    that was made with the network of --classifier."""
    captions: str | None = None
    """The file in the folder of --pictures that has their captions, as `pack folder` reads it; `inside` for tars, which
    have them in their samples. The CLIP score and R-precision by CLIP need them, and diversity, which compares the
    pictures that have the same sentence."""
    training: str | None = None
    """The pictures that the system was trained on, as for --against: whether some were learnt by heart is found out by
    the nearest of them."""
    split: str = "test"
    """The split of a packed --against; of a packed --training it is the split train."""
    image_size: ImageSize | None = None
    """The size of the crops of packed sets, in pixels. The default is that of the first picture."""
    fit: Fit = "crop"
    """What becomes of pictures that are not square: crop keeps the central square, squash squeezes all of it into one,
    as clean-fid and pytorch-fid do."""
    name: str | None = None
    """What the rows call these pictures. The default is the last part of --pictures."""
    out: str | None = None
    """The folder or URL whose scores.jsonl the rows are added to. The default is scores/NAME."""
    save_statistics: str | None = None
    """A new file or URL (.npz) for mean and covariance of the pictures' features by --classifier, which pytorch-fid and
    clean-fid read."""
    protocol: Annotated[ScoreProtocol, tyro.conf.arg(name="")] = field(default_factory=ScoreProtocol)
    classifier: str = "efficientnet-lite0"
    """The network that judges, as for the scores of a run."""
    encoder: tuple[str, ...] = ()
    """Encoders of pictures whose features are compared too: folders of a DINOv2 or a CLIP as Hugging Face has them, or
    further classifiers. With a CLIP, and captions, there are the CLIP score and R-precision by CLIP."""
    keep_real: str = "default"
    """The folder or URL where what is measured of real pictures is kept, for other scores on the same data. `default`
    is a folder in the user's cache, `none` nowhere."""
    seed: Seed = 0
    """The seed chooses the order of the pictures, of which the first ones are compared where not all are."""
    batch_size: Annotated[int, Range(at_least=1)] = 64
    """The number of pictures in a batch, as large as they are in the files; it bounds the memory."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost."""

    @property
    def title(self) -> str:
        """What the rows call the pictures."""
        return self.name or PurePosixPath(self.pictures.rstrip("/")).name


@dataclass(frozen=True)
class _RealSource:
    """One of the real sides that can be named."""

    pictures: PictureSource
    digest: str
    kind: str
    """For the rows: how its pictures are made ready."""
    classes: CaptionSet | None
    """Of a packed set, which knows them."""


def score_pictures(options: PictureOptions) -> None:
    """Find, validate, connect, look, report."""
    protocol = options.protocol
    count = protocol.samples
    _check_new(options.save_statistics)
    pictures = PictureFiles(options.pictures, options.captions, options.batch_size, options.seed, options.fit, count)
    protocol = replace(protocol, samples=pictures.count)
    size = options.image_size or pictures.side()
    judges = Judges.load(options.classifier, options.encoder)
    judges.check()
    InceptionScoreSums(protocol.samples, protocol.splits, judges.classifier.classes)
    given = _given_statistics(options, judges)
    out = _made(options.out or join("scores", options.title))
    groups = pictures.of_one_sentence(protocol.diversity_sentences, protocol.diversity_pictures)
    recipe = None if given is not None else _recipe(options, size, has_groups=bool(groups))
    identity = {
        "protocol": dataclasses.asdict(protocol),
        "name": options.title,
        "pictures": options.pictures,
        "pictures_digest": pictures.digest,
        "captions": options.captions,
        "image_size": size,
        "fit": options.fit,
        "against": options.against,
        "against_digest": given.sha256 if given is not None else recipe.identity["against"] if recipe else None,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

    with process_group(options.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        judges = Judges.load(options.classifier, options.encoder, ranks.device)
        if ranks.is_main:
            left = f", {pictures.left_out:,} left out (no caption, or at fault)" if pictures.left_out else ""
            print(f"{options.pictures}: {pictures.count:,} pictures are scored{left}", flush=True)
            if pictures.has_captions and not groups:
                print("no sentence has two pictures: how different those of one are is not measured", flush=True)
        folder = kept_folder(options.keep_real)
        announce(
            "pictures",
            pictures.count,
            pictures.batches(0, 1),
            options.batch_size,
            recipe,
            judges,
            protocol,
            ranks,
            folder,
        )
        real = measure_real_side(recipe, judges, protocol, ranks, folder) if recipe is not None else None
        spaces = real.spaces if real is not None else [RealSet(given, None, None)] if given is not None else []
        clip_candidates = _clip_candidates(pictures, judges, protocol, options.seed)
        sums = PictureSums(judges, pictures.count, protocol.splits, protocol.compared, clip_candidates=clip_candidates)
        sums.add_all(pictures.batches(ranks.rank, ranks.world_size), "pictures", ranks)
        scores = scores_of(
            sums,
            spaces,
            judges,
            protocol,
            options.seed,
            ranks,
            has_sentences=pictures.has_captions,
            has_matches=False,
        )
        if groups:
            scores = replace(scores, diversity=diversity_of_files(pictures, groups, ranks, judges))
        if ranks.is_main:
            rows = report_rows(scores, real, judges, identity, protocol.wrong_captions, options.seed)
            for row in rows:
                file = append_score(out, row)
            if options.save_statistics is not None:
                write_bytes(options.save_statistics, statistics_bytes(sums.spaces[0].frechet))
            print(f"{options.title}, against {options.against}")
            print(as_text(rows))
            print(f"  recorded in {file}; peak memory of this rank {peak_memory_bytes() / 1e6:,.0f} MB", flush=True)


def _check_new(statistics: str | None) -> None:
    """UserError where there is something at the file for the statistics: others may be scored against it."""
    if statistics is not None and exists(statistics):
        raise UserError(
            f"--save-statistics {statistics} exists, and scores against it are bound to its content; give another "
            "name, or move it away"
        )


def _made(where: str) -> Folder:
    """The folder for the rows, which exists before hours are spent; UserError where it cannot be made."""
    folder = Folder.at(where)
    try:
        if folder.path is not None:
            folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {where}: {error.strerror}; give another one with --out") from error
    return folder


def _given_statistics(options: PictureOptions, judges: Judges) -> GivenMoments | None:
    """What the statistics file of --against says; None when it is no such file."""
    if not options.against.lower().endswith(_STATISTICS):
        return None
    if judges.encoders:
        raise UserError(
            f"{options.against} says nothing of the features by --encoder {judges.encoders[0].name}: leave that "
            "out, or give real pictures with --against"
        )
    if options.training is not None:
        raise UserError(
            "--training needs held-out real pictures beside it: give a packed set or a folder with --against"
        )
    try:
        content = read_bytes(options.against)
    except OSError as error:
        raise UserError(f"cannot read --against {options.against}: {error.strerror or error}") from error
    return read_statistics(content, options.against, judges.classifier.feature_width, judges.classifier.name)


def _clip_candidates(
    pictures: PictureFiles, judges: Judges, protocol: ScoreProtocol, seed: int
) -> ClipCandidates | None:
    """The pictures' own sentences, as far as there are more than one; None without a CLIP."""
    sentences = pictures.sentences[: protocol.wrong_pool]
    if judges.clip is None or len(sentences) < 2:
        return None
    wrong = min(protocol.wrong_captions, len(sentences) - 1)
    return ClipCandidates(judges.clip.embedded(sentences), sentences, wrong, seed)


def _recipe(options: PictureOptions, size: int, *, has_groups: bool) -> Recipe:
    """What to measure of the real side; of groups of a class only where the pictures have groups of a sentence."""
    protocol, most = options.protocol, options.protocol.map_pictures
    real = _real_source(options, options.against, options.split, size, None)
    training = _real_source(options, options.training, "train", size, most) if options.training is not None else None
    asked = (protocol.diversity_sentences, protocol.diversity_pictures) if has_groups and real.classes else None
    classes = None
    if asked is not None and real.classes is not None:
        classes = PicturesOfClasses(real.classes, size, *asked, options.batch_size, options.seed)
    return Recipe(
        real.pictures,
        training.pictures if training is not None else None,
        size,
        options.seed,
        options.batch_size,
        {
            "against": real.digest,
            "training": training.digest if training is not None else None,
            "fit": [real.kind, training.kind if training is not None else None],
            "at_most": most,
            **({} if asked is None else {"diversity": asked}),
        },
        diversity=partial(diversity_of_classes, classes) if classes is not None else None,
    )


def _real_source(options: PictureOptions, where: str, split: str, size: int, most: int | None) -> _RealSource:
    """The pictures at `where`, at most so many."""
    packed = _packed(where, split, size)
    if packed is not None:
        captions = packed.captions()
        pictures = RealPictures(captions, size, options.batch_size, options.seed, most)
        return _RealSource(pictures, packed.index.digest, f"middle {size} of the stored pictures", captions)
    files = PictureFiles(where, None, options.batch_size, options.seed, options.fit, most)
    return _RealSource(files, files.digest, options.fit, None)


def _packed(where: str, split: str, size: int) -> PackedSet | None:
    """The packed set of crops of `size` at `where`; None where there is none, of any size.

    Raises UserError when there are other sizes only: with the command that packs this one, or, where no generator makes
    it, with those that are there.
    """
    if where.lower().endswith((_STATISTICS, *TARS)):
        return None
    below = Folder.at(where) / split
    sizes = [name for name in below.names() if name.isdecimal() and below.exists(f"{name}/{INDEX_NAME}")]
    if not sizes:
        return None
    if (crops := next((known for known in get_args(ImageSize) if known == size), None)) is None:
        known = ", ".join(str(known) for known in get_args(ImageSize) if str(stored_size(known)) in sizes)
        raise UserError(
            f"{where} is packed, and has pictures of {known or 'other'} pixels, not {size}: name one with --image-size"
        )
    return open_packed(DataConfig(url=where), crops, split)
