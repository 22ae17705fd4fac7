"""The folder of a study: what is ranked, and the files beside it.

DIR/study.json      methods, sentences, how they were chosen; written last, so a half-built study has none
    pictures/       one PNG per sentence and method: the pictures that are ranked as one, side by side
    votes.sqlite    raters and votes (and its -wal and -shm), made by the first `serve`
    token           what opens the pages where the server is not bound to loopback, made when it is needed
    .building       of a build that runs or was stopped; its pictures may be replaced
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.protocol import PAPER, Protocol
from stackgan_dist.storage.files import local_path, write_bytes

SCHEMA = 1
"""Of studies by the paper's protocol: all versions read them."""
PROTOCOL_SCHEMA = 2
"""Of studies by another one."""
_PICTURES = "pictures"
_PICTURE = re.compile(r"\d{5,}-\d+\.png")


@dataclass(frozen=True)
class Method:
    """One of the methods that are compared."""

    name: str
    """As the report calls it; no rater sees it."""
    checkpoint: str
    """Or the folder of pictures that were made elsewhere."""
    step: int
    weights: str
    """"ema" or "raw", or "pictures" for those that were made elsewhere."""
    image_size: int
    """Side of its pictures in pixels. The page shows those of all methods equally large."""


@dataclass(frozen=True)
class Question:
    """One sentence whose pictures are ranked."""

    sentence: str
    class_name: str
    check: bool
    """Whether it is an attention check: set 0 is real pictures, the others are noise."""


@dataclass(frozen=True)
class Study:
    """The content of study.json."""

    data: str
    """Name of the data set, by which the paper's row is found."""
    captions: str
    """Where the sentences were taken from."""
    captions_digest: str
    seed: int
    """Chooses sentences and noise, and every rater's orders."""
    images: int
    """Pictures per sentence and method."""
    questions_per_rater: int
    """Sentences that one rater is asked to rank, attention checks not counted."""
    methods: tuple[Method, ...]
    questions: tuple[Question, ...]
    """Those to rank first, the attention checks after them."""
    schema: int = SCHEMA
    protocol: Protocol = PAPER
    """How it is asked."""

    @property
    def at_once(self) -> int:
        """Sets of pictures on a page."""
        return self.protocol.at_once or len(self.methods)

    @property
    def sentences(self) -> int:
        """Questions that are no attention checks."""
        return sum(not question.check for question in self.questions)

    @property
    def checks(self) -> int:
        """Questions that are."""
        return len(self.questions) - self.sentences

    def to_bytes(self) -> bytes:
        """The file's content. That of a study by the paper's protocol is as it was before there were others."""
        fields = dataclasses.asdict(self)
        if self.protocol == PAPER:
            del fields["protocol"]
        else:
            fields["schema"] = PROTOCOL_SCHEMA
        return (json.dumps(fields, indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the file: the votes remember it, so that they are never counted for another study."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


class StudyFolder:
    """Paths of one study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / "study.json"
        self.votes_file = path / "votes.sqlite"
        self.token_file = path / "token"
        self.building_file = path / ".building"
        self.pictures = path / _PICTURES

    def picture_file(self, question: int, method: int) -> Path:
        """Where the pictures of `method` for `question` are: one row of squares."""
        return self.pictures / f"{question:05d}-{method}.png"

    def picture_files(self) -> list[Path]:
        """Those that are there."""
        return [file for file in self.pictures.iterdir() if _PICTURE.fullmatch(file.name)]

    def write(self, study: Study) -> None:
        """Write study.json, which makes the study complete."""
        write_bytes(str(self.study_file), study.to_bytes())
        self.building_file.unlink(missing_ok=True)

    def read(self) -> Study:
        """The study; UserError when there is none, or it is not readable."""
        try:
            return _parse(json.loads(self.study_file.read_bytes()))
        except FileNotFoundError:
            raise UserError(
                f"there is no study at {self.path} (no study.json). Build one:\n"
                f"  python -m stackgan_dist.human_rank build --runs A B --out {shlex.quote(str(self.path))}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.study_file} is not a study of this version: {error}; build it again") from error


def study_of(file: Path) -> Path | None:
    """The folder of the study that `file`, there or not, is a part of; None where it is none of a study's own files."""
    file = file.resolve()
    if file.parent.name == _PICTURES and (file.parent.parent / "study.json").exists():
        return file.parent.parent
    folder = StudyFolder(file.parent)
    own = {file.name for file in (folder.study_file, folder.votes_file, folder.token_file, folder.building_file)}
    own |= {f"{folder.votes_file.name}-{kind}" for kind in ("wal", "shm", "journal")}
    # Some disks take Study.json for study.json.
    return folder.path if folder.study_file.exists() and file.name.casefold() in own else None


def check_exports(csv: str | None, as_json: str | None) -> None:
    """UserError where what is written to these would replace a part of a study, or one file would be written twice."""
    paths = {}
    for flag, file in (("--csv", csv), ("--json", as_json)):
        path = None if file is None else local_path(file)
        if path is not None and (study := study_of(path)) is not None:
            raise UserError(
                f"{flag} {file} is a file of the study in {study}, which would be lost by it; give another name"
            )
        paths[flag] = file if path is None else str(path.resolve())
    if csv is not None and paths["--csv"] == paths["--json"]:
        raise UserError(f"--csv and --json both name {csv}; give two names")


def _parse(fields: dict[str, Any]) -> Study:
    if (schema := fields.pop("schema")) not in (SCHEMA, PROTOCOL_SCHEMA):
        raise ValueError(f"it has schema {schema}, this version reads {SCHEMA} and {PROTOCOL_SCHEMA}")
    protocol = Protocol(**fields.pop("protocol", {}))
    methods = tuple(Method(**method) for method in fields.pop("methods"))
    questions = tuple(Question(**question) for question in fields.pop("questions"))
    return Study(**fields, methods=methods, questions=questions, protocol=protocol)
