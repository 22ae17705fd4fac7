"""Every rater and every vote of a study, in one SQLite file.

A vote is on the disk (write-ahead log, synced) before anyone is told that it counts, and nothing is ever deleted: a
vote that was taken back stays, marked. A rater has one standing vote per position, by a unique index.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.order import Task
from stackgan_dist.storage.locks import has_record_locks, is_fresh

_WAIT_S = 0.1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS raters (
    number INTEGER PRIMARY KEY,
    link_sha256 TEXT NOT NULL UNIQUE, -- the link itself is known to the rater alone
    joined TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS votes (
    rater INTEGER NOT NULL REFERENCES raters (number),
    position INTEGER NOT NULL,
    question INTEGER NOT NULL,
    ranking TEXT NOT NULL, -- methods, best first, as JSON; those that share a place as a list in it
    time TEXT NOT NULL,
    undone TEXT -- when it was taken back
);
CREATE UNIQUE INDEX IF NOT EXISTS standing ON votes (rater, position) WHERE undone IS NULL;
CREATE TABLE IF NOT EXISTS asked ( -- by adaptive studies: what was chosen to be asked, before it is shown
    rater INTEGER NOT NULL REFERENCES raters (number),
    position INTEGER NOT NULL,
    question INTEGER NOT NULL,
    shown TEXT NOT NULL, -- methods in the order of their places, as JSON
    aspect TEXT NOT NULL,
    PRIMARY KEY (rater, position)
);
"""


@dataclass(frozen=True)
class Vote:
    """One rater's ranking of the methods' pictures for one sentence."""

    rater: int
    position: int
    """How many votes this rater had given before."""
    question: int
    places: tuple[tuple[int, ...], ...]
    """Methods by place, the best first; several in one place are tied."""
    time: str
    """UTC, ISO 8601."""
    undone: str | None
    """When the rater took it back; None while it stands."""

    @property
    def ranking(self) -> tuple[int, ...]:
        """Methods, best first; tied ones in any order."""
        return tuple(method for place in self.places for method in place)


class Votes:
    """The votes of the study whose digest is `digest`; made when there are none yet.

    One connection, which one thread uses at a time. Raises UserError for a file that cannot be used or that
    belongs to another study.
    """

    def __init__(self, file: Path, digest: str) -> None:
        try:
            self._db = _connect(file)
            self._db.execute("PRAGMA synchronous = FULL")  # WAL's default may lose a commit when the power fails
            self._db.executescript(_SCHEMA)
            with self.transaction():
                row = self._db.execute("SELECT digest FROM study").fetchone()
                if row is None:
                    self._db.execute("INSERT INTO study VALUES (?)", (digest,))
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"cannot use {file} for votes: {error}; put it right, or move it away") from error
        if row is not None and row[0] != digest:
            self._db.close()
            raise UserError(f"{file} holds votes on another study than the study.json beside it; move one of them away")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is on the disk when it ends, or none of it where it raises."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def add_rater(self) -> str:
        """A new rater's link: 128 random bits, of which only the hash is kept."""
        link = secrets.token_urlsafe(16)
        (number,) = self._db.execute("SELECT COUNT(*) FROM raters").fetchone()
        self._db.execute("INSERT INTO raters VALUES (?, ?, ?)", (number, _hashed(link), _now()))
        return link

    def rater(self, link: str) -> int | None:
        """The number of the rater with this link, counted from 0."""
        row = self._db.execute("SELECT number FROM raters WHERE link_sha256 = ?", (_hashed(link),)).fetchone()
        return None if row is None else row[0]

    def standing(self, rater: int) -> int:
        """How many votes of this rater stand: the position of the next one."""
        query = "SELECT COUNT(*) FROM votes WHERE rater = ? AND undone IS NULL"
        return int(self._db.execute(query, (rater,)).fetchone()[0])

    def places(self, rater: int, position: int) -> tuple[tuple[int, ...], ...] | None:
        """The standing vote at a position, if there is one."""
        query = "SELECT ranking FROM votes WHERE rater = ? AND position = ? AND undone IS NULL"
        row = self._db.execute(query, (rater, position)).fetchone()
        return None if row is None else _places(row[0])

    def add(self, rater: int, position: int, question: int, places: Sequence[Sequence[int]]) -> None:
        """Write a vote."""
        ranking = [place[0] if len(place) == 1 else list(place) for place in places]
        values = (rater, position, question, json.dumps(ranking), _now())
        self._db.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, NULL)", values)

    def asked(self) -> dict[tuple[int, int], Task]:
        """What an adaptive study chose to ask, by rater and position."""
        rows = self._db.execute("SELECT rater, position, question, shown, aspect FROM asked")
        return {
            (rater, at): Task(question, tuple(json.loads(shown)), aspect) for rater, at, question, shown, aspect in rows
        }

    def asked_at(self, rater: int, position: int) -> Task | None:
        """What an adaptive study chose to ask this rater there, if it was chosen."""
        query = "SELECT question, shown, aspect FROM asked WHERE rater = ? AND position = ?"
        row = self._db.execute(query, (rater, position)).fetchone()
        return None if row is None else Task(row[0], tuple(json.loads(row[1])), row[2])

    def ask(self, rater: int, position: int, task: Task) -> None:
        """Note what is going to be asked."""
        values = (rater, position, task.question, json.dumps(list(task.shown)), task.aspect)
        self._db.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?)", values)

    def hashed_link(self, rater: int) -> str:
        """The hash of a rater's link."""
        return str(self._db.execute("SELECT link_sha256 FROM raters WHERE number = ?", (rater,)).fetchone()[0])

    def take_back(self, rater: int, position: int) -> None:
        """Mark the standing vote at a position as undone."""
        query = "UPDATE votes SET undone = ? WHERE rater = ? AND position = ? AND undone IS NULL"
        self._db.execute(query, (_now(), rater, position))

    def all(self) -> list[Vote]:
        """Every vote in the order of arrival, those taken back included."""
        rows = self._db.execute("SELECT rater, position, question, ranking, time, undone FROM votes ORDER BY rowid")
        return [
            Vote(rater, position, question, _places(ranking), time, undone)
            for rater, position, question, ranking, time, undone in rows
        ]


def _connect(file: Path) -> sqlite3.Connection:
    """Where files can be locked, readers and the writer go on side by side (write-ahead log); else by turns."""
    file.touch()  # by the user's umask; SQLite itself would make it 0644
    if has_record_locks(file.parent):
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        return db
    lock = file.with_name(f"{file.name}.lock")  # a folder, by which SQLite's unix-dotfile locks
    while lock.exists():
        if is_fresh(lock):
            time.sleep(_WAIT_S)
        else:
            with suppress(FileNotFoundError):  # it was released, or another process was quicker
                lock.rmdir()  # of a process that was killed: nobody holds it for longer than a vote takes
    url = f"{file.absolute().as_uri()}?vfs=unix-dotfile"
    return sqlite3.connect(url, uri=True, isolation_level=None, check_same_thread=False, timeout=30)


def _places(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(place) if isinstance(place, list) else (place,) for place in json.loads(text))


def _hashed(link: str) -> str:
    return hashlib.sha256(link.encode()).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
