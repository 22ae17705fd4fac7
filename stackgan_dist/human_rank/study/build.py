"""Building a study: the paper's sentences, and every method's pictures of them, generated on any number of ranks.

The paper's protocol (section 4.1): 50 random captions of every class of the test set, five pictures of every method
for each. Picture j of sentence q has noise q * images + j for every method, as the samples of a score have theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.pictures import decoded, middle
from stackgan_dist.distributed.process_group import Ranks, main_first
from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import generate_pictures, places_of
from stackgan_dist.generation.grid import side_by_side, to_pictures
from stackgan_dist.human_rank.study.folder import Method, Question, Study, StudyFolder
from stackgan_dist.human_rank.study.noise import write_check
from stackgan_dist.human_rank.study.protocol import PAPER, Protocol
from stackgan_dist.progress import ProgressLine
from stackgan_dist.randomness import permutation
from stackgan_dist.runs.trained import Trained

_BATCH = 64
"""Pictures generated at once; whole batches are dealt to ranks, so any number of them makes the same bytes."""
_CAPTION_STREAM, _SUBSET_STREAM, _CHECK_STREAM = 0x5201, 0x5202, 0x5203


@dataclass(frozen=True)
class Entrant:
    """A method, ready to generate."""

    method: Method
    trained: Trained


@dataclass(frozen=True)
class Chosen:
    """A caption that was chosen: caption `number` of picture `picture` of the set."""

    question: Question
    picture: int
    number: int
    real: tuple[int, ...]
    """For an attention check: the real pictures to show, of the caption's class."""


def choose(captions: CaptionSet, per_class: int, most: int | None, checks: int, images: int, seed: int) -> list[Chosen]:
    """`per_class` captions of every class, no sentence twice, at most `most`; and `checks` attention checks after them.

    A class with fewer different sentences gives all it has; a set without classes counts as one class.
    """
    pictures: dict[str, list[int]] = defaultdict(list)
    for picture in range(len(captions)):
        pictures[captions.caption(picture, 0).meta.get("class") or ""].append(picture)
    per_picture = captions.index.captions_per_image
    chosen: list[Chosen] = []
    seen: set[str] = set()
    for class_number, name in enumerate(sorted(pictures)):
        wanted = len(chosen) + per_class
        for pair in permutation(len(pictures[name]) * per_picture, seed, _CAPTION_STREAM, class_number):
            if len(chosen) == wanted:
                break
            picture, number = pictures[name][pair // per_picture], int(pair % per_picture)
            sentence = captions.caption(picture, number).sentence
            if sentence not in seen:
                seen.add(sentence)
                chosen.append(Chosen(Question(sentence, name, check=False), picture, number, ()))
    if most is not None:
        chosen = [chosen[i] for i in permutation(len(chosen), seed, _SUBSET_STREAM)[:most]]
    for picture in permutation(len(captions), seed, _CHECK_STREAM)[:checks].tolist():
        caption = captions.caption(picture, 0)
        name = caption.meta.get("class") or ""
        alike = [picture, *(other for other in pictures[name] if other != picture)]
        real = tuple(alike[j % len(alike)] for j in range(images))
        chosen.append(Chosen(Question(caption.sentence, name, check=True), picture, 0, real))
    return chosen


def build_study(
    folder: StudyFolder,
    packed: PackedSet,
    entrants: Sequence[Entrant],
    chosen: Sequence[Chosen],
    *,
    images: int,
    questions_per_rater: int,
    seed: int,
    ranks: Ranks,
    protocol: Protocol = PAPER,
) -> Study:
    """Generate all pictures, then write the study. Ranks on several nodes need a folder that they share."""
    captions = packed.captions()
    methods = tuple(entrant.method for entrant in entrants)
    study = Study(
        data=packed.index.name,
        captions=packed.url,
        captions_digest=packed.index.digest,
        seed=seed,
        images=images,
        questions_per_rater=questions_per_rater,
        methods=methods,
        questions=tuple(one.question for one in chosen),
        protocol=protocol,
    )
    main_first(lambda: make_room(folder), ranks)
    if ranks.is_main:
        _write_checks(folder, captions, chosen, methods, seed)
    for number, entrant in enumerate(entrants):
        _write_method(folder, captions, entrant, number, chosen[: study.sentences], images, seed, ranks)
    if ranks.distributed:
        dist.barrier()
    main_first(lambda: _complete(folder, study), ranks)
    return study


def make_room(folder: StudyFolder) -> None:
    """Make the folders of a study; UserError where there is anything but what a stopped build left, or on a fault."""
    if folder.study_file.exists():
        raise UserError(f"{folder.path} holds a study already; choose another --out, or remove it with its votes")
    try:
        found = sorted(file.name for file in folder.path.iterdir()) if folder.path.is_dir() else []
        if found and folder.building_file.name not in found:
            raise UserError(
                f"{folder.path} holds {len(found):,} files or folders already ({found[0]} is one), and is not what a "
                f"build that was stopped left there (it has no {folder.building_file.name}); choose a new or an empty "
                "folder for --out"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.building_file.touch()  # before all else, so that what a build leaves is known by it
        folder.pictures.mkdir(exist_ok=True)
        # What a build that was killed left: _complete must not take it for a picture of this one.
        for picture in folder.picture_files():
            picture.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {folder.path}: {error.strerror}; choose another --out") from error


def check_inputs(folder: StudyFolder, inputs: Iterable[Path]) -> None:
    """UserError where one of `inputs` lies in the study's folder, in which a build removes what another one left."""
    own = (folder.path.resolve(), folder.pictures.resolve())
    for path in inputs:
        if any(path.resolve().is_relative_to(place) for place in own):
            raise UserError(
                f"{path} lies in {folder.path}, where the study's own pictures are to be written; choose an --out "
                "beside it"
            )


def _complete(folder: StudyFolder, study: Study) -> None:
    missing = [
        file
        for question in range(len(study.questions))
        for method in range(len(study.methods))
        if not (file := folder.picture_file(question, method)).exists()
    ]
    if missing:
        raise UserError(
            f"{len(missing)} files that other ranks wrote are not here, {missing[0]} is one of them; "
            "give an --out that all nodes share"
        )
    folder.write(study)


def _write_method(
    folder: StudyFolder,
    captions: CaptionSet,
    entrant: Entrant,
    method: int,
    chosen: Sequence[Chosen],
    images: int,
    seed: int,
    ranks: Ranks,
) -> None:
    generator = entrant.trained.generator(ranks.device)
    per_batch = max(1, _BATCH // images)
    line = ProgressLine(entrant.method.name, len(chosen), "sentences")
    for begin in range(ranks.rank * per_batch, len(chosen), ranks.world_size * per_batch):
        batch = chosen[begin : begin + per_batch]
        text = np.repeat(_embeddings(captions, batch, entrant.trained), images, axis=0)
        numbers = range(begin * images, (begin + len(batch)) * images)
        model = entrant.trained.config.model
        place = places_of([captions.caption(one.picture, one.number) for one in batch], model)
        places = None if place is None else np.repeat(place, images, axis=0)
        fakes = generate_pictures(generator, model, text, numbers, seed, places)
        pictures = to_pictures(fakes.image)
        for row in range(len(batch)):
            side_by_side(pictures[row * images : (row + 1) * images]).save(folder.picture_file(begin + row, method))
        if ranks.is_main:
            line.show(min(len(chosen), begin + per_batch * ranks.world_size))


def _embeddings(captions: CaptionSet, batch: Sequence[Chosen], trained: Trained) -> NDArray[np.float32]:
    """(n, dim): the packed ones where the set's encoder is the run's, else the run's encoder reads the sentences."""
    index = captions.index
    if trained.data.reads_texts_of(index):
        return np.stack([captions.caption(one.picture, one.number).embedding for one in batch])
    return trained.encoder().encode([one.question.sentence for one in batch])


def _write_checks(
    folder: StudyFolder, captions: CaptionSet, chosen: Sequence[Chosen], methods: Sequence[Method], seed: int
) -> None:
    size = max(method.image_size for method in methods)
    for question, one in enumerate(chosen):
        if not one.question.check:
            continue
        real = [middle(decoded(captions, captions.caption(picture, 0)), size) for picture in one.real]
        write_check(folder, question, [Image.fromarray(pixels) for pixels in real], len(methods), seed)
