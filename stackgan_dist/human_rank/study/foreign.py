"""Pictures that were made elsewhere, as methods of a study: a folder of pictures whose captions are given.

Captions stand, in this order of preference, in a table of the folder (captions.csv, captions.tsv, captions.jsonl or
metadata.*, with a column file or file_name and one caption, text or sentence), in a text file beside each picture, in
the pictures (`generate` writes them there), or in the files' names: "a_red_bird-0.png", "a_red_bird-1.png".
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.generation.grid import side_by_side
from stackgan_dist.generation.names import SENTENCE, besides
from stackgan_dist.human_rank.study.folder import Method, Question, Study, StudyFolder
from stackgan_dist.human_rank.study.noise import write_check
from stackgan_dist.human_rank.study.protocol import Protocol
from stackgan_dist.pack.pictures import PictureError, load_picture
from stackgan_dist.progress import ProgressLine
from stackgan_dist.randomness import permutation
from stackgan_dist.storage.output_folder import check_whole

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_TABLES = tuple(f"{name}.{kind}" for name in ("captions", "metadata") for kind in ("csv", "tsv", "jsonl"))
_FILE_COLUMNS, _CAPTION_COLUMNS = ("file", "file_name", "filename", "image"), ("caption", "text", "sentence")
_NUMBERED = re.compile(r"[-_ ]?\(?\d+\)?$")
_SENTENCE_STREAM, _PICTURE_STREAM, _REAL_STREAM = 0x5206, 0x5207, 0x5208
_SHOWN = 5
"""Sentences in a message."""


@dataclass(frozen=True)
class ForeignMethod:
    """A folder's pictures by sentence."""

    name: str
    folder: Path
    pictures: Mapping[str, Sequence[Path]]

    @classmethod
    def read(cls, folder: Path, name: str) -> ForeignMethod:
        """The pictures in `folder`; UserError when there are none, or one has no caption."""
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder of pictures; give one with --pictures")
        check_whole(folder, (path.relative_to(folder).as_posix() for path in folder.rglob(".*")))
        captions = _from_table(folder)
        pictures: dict[str, list[Path]] = defaultdict(list)
        others = {folder / name for name in besides([path.name for path in folder.iterdir()])}
        for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES):
            if file in others:
                continue
            given = file.relative_to(folder).as_posix()
            if captions is not None and given not in captions:
                raise UserError(f"{folder}: the table of captions has none for {given}; add it, or move the file away")
            sentence = captions[given] if captions is not None else _beside(file) or _inside(file) or _in_name(file)
            if not sentence:
                raise UserError(
                    f"{file} has no caption: neither in a table, nor in {file.stem}.txt, nor in the picture, and its "
                    "name has no words; give one of them"
                )
            pictures[sentence].append(file)
        if not pictures:
            raise UserError(f"{folder} has no pictures ({', '.join(sorted(_PICTURES))})")
        return cls(name, folder, pictures)


def build_foreign_study(
    folder: StudyFolder,
    methods: Sequence[ForeignMethod],
    protocol: Protocol,
    *,
    sentences: int | None,
    images: int,
    real: Path | None,
    attention_checks: int,
    questions_per_rater: int,
    seed: int,
) -> Study:
    """Choose sentences and pictures, copy them, write the study.

    Raises UserError where the methods have different sentences, or too few pictures of one.
    """
    _same_sentences(methods)
    everything = sorted(methods[0].pictures)
    count = len(everything) if sentences is None else min(sentences, len(everything))
    chosen = [everything[i] for i in permutation(len(everything), seed, _SENTENCE_STREAM)[:count]]
    for method in methods:
        for sentence in chosen:
            if len(method.pictures[sentence]) < images:
                raise UserError(
                    f"{method.folder} has {len(method.pictures[sentence])} pictures of {sentence!r}, and --images asks "
                    f"for {images}; lower it, or add pictures"
                )
    checks = _checks(real, attention_checks, images, seed)
    line = ProgressLine("pictures", (count + len(checks)) * len(methods), "files")
    described = []
    for number, method in enumerate(methods):
        sizes = set()
        for question, sentence in enumerate(chosen):
            files = method.pictures[sentence]
            some = permutation(len(files), seed, _PICTURE_STREAM, question)[:images]
            row = [_opened(files[i]) for i in sorted(some.tolist())]
            sizes |= {picture.size for picture in row}
            if len(sizes) > 1:
                raise UserError(
                    f"{method.folder} has pictures of {sorted(sizes)} pixels; a method's must be of one size"
                )
            side_by_side(row).save(folder.picture_file(question, number))
            line.show(number * count + question + 1)
        side = next(iter(sizes))[0]
        described.append(Method(method.name, str(method.folder), 0, "pictures", side))
    _write_checks(folder, checks, count, described, seed)
    study = Study(
        data="pictures",
        captions=", ".join(str(method.folder) for method in methods),
        captions_digest="",
        seed=seed,
        images=images,
        questions_per_rater=questions_per_rater,
        methods=tuple(described),
        questions=(
            *(Question(sentence, "", check=False) for sentence in chosen),
            *(Question("Which of these are photographs?", "", check=True) for _ in checks),
        ),
        protocol=protocol,
    )
    folder.write(study)
    return study


def _same_sentences(methods: Sequence[ForeignMethod]) -> None:
    first = methods[0]
    for other in methods[1:]:
        for has, lacks in ((first, other), (other, first)):
            if missing := sorted(set(has.pictures) - set(lacks.pictures)):
                shown = "; ".join(map(repr, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
                raise UserError(
                    f"{lacks.folder} has no pictures of {len(missing)} sentences that {has.folder} has: {shown}. "
                    "Every method needs the same sentences; compare how the captions are spelt"
                )


def _checks(real: Path | None, count: int, images: int, seed: int) -> list[list[Path]]:
    """For each attention check, the real pictures that are shown."""
    if not count:
        return []
    if real is None:
        raise UserError("--attention-checks show real pictures against noise; give a folder of real ones with --real")
    files = sorted(path for path in real.rglob("*") if path.suffix.lower() in _PICTURES)
    if len(files) < images:
        raise UserError(f"--real {real} has {len(files)} pictures; a check shows {images}")
    return [[files[i] for i in permutation(len(files), seed, _REAL_STREAM, check)[:images]] for check in range(count)]


def _write_checks(
    folder: StudyFolder, checks: Sequence[Sequence[Path]], first: int, methods: Sequence[Method], seed: int
) -> None:
    side = max(method.image_size for method in methods)
    for number, files in enumerate(checks):
        row = [_middle(file).resize((side, side), Image.Resampling.LANCZOS) for file in files]
        write_check(folder, first + number, row, len(methods), seed)


def _from_table(folder: Path) -> dict[str, str] | None:
    """{file: caption} of the folder's table; None without one."""
    table = next((folder / name for name in _TABLES if (folder / name).exists()), None)
    if table is None:
        return None
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            if table.suffix == ".jsonl":
                rows = [_object(line) for line in lines if line.strip()]
            else:
                rows = list(csv.DictReader(lines, delimiter="\t" if table.suffix == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table} cannot be read: {error}") from error
    columns = set(rows[0]) if rows else set()
    file = next((name for name in _FILE_COLUMNS if name in columns), None)
    caption = next((name for name in _CAPTION_COLUMNS if name in columns), None)
    if file is None or caption is None:
        raise UserError(
            f"{table} has the columns {', '.join(sorted(map(str, columns))) or 'none'}; one of "
            f"{', '.join(_FILE_COLUMNS)} and one of {', '.join(_CAPTION_COLUMNS)} are needed"
        )
    captions = {}
    for number, row in enumerate(rows, 1):
        if row.get(file) is None:
            raise UserError(f"{table}: row {number} has no {file}; add it, or remove the row")
        said = row.get(caption)
        captions[str(row[file])] = "" if said is None else " ".join(str(said).split())
    return captions


def _object(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"the line {line.strip()} is no JSON object")
    return row


def _beside(file: Path) -> str:
    text = file.with_suffix(".txt")
    try:
        return " ".join(text.read_text(encoding="utf-8-sig").split()) if text.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{text} cannot be read: {error}") from error


def _inside(file: Path) -> str:
    """The sentence in a PNG's text, as `generate` writes it."""
    try:
        with Image.open(file) as picture:
            said = picture.info.get(SENTENCE)
    except Exception:  # told where the picture is decoded; every decoder has exceptions of its own
        return ""
    return " ".join(said.split()) if isinstance(said, str) else ""


def _in_name(file: Path) -> str:
    """The caption in a file's name: words without the number at its end; "" where there is no letter."""
    words = " ".join(_NUMBERED.sub("", file.stem).replace("_", " ").replace("-", " ").split())
    return words if any(letter.isalpha() for letter in words) else ""


def _rgb(file: Path) -> Image.Image:
    """Upright, sRGB and on white, as the scores see it."""
    try:
        return load_picture(file.read_bytes())
    except (OSError, PictureError) as error:
        raise UserError(f"{file} is not a picture that can be read: {error}") from error


def _opened(file: Path) -> Image.Image:
    rgb = _rgb(file)
    if rgb.width != rgb.height:
        raise UserError(f"{file} has {rgb.width}x{rgb.height} pixels; the page shows squares: crop it")
    return rgb


def _middle(file: Path) -> Image.Image:
    """The central square of a picture of any shape."""
    rgb = _rgb(file)
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    return rgb.crop((left, top, left + side, top + side))
