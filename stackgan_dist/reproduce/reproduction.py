"""One of the paper's tables on one data set: its jobs, carried out one after the other, and the table at the end."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.errors import UserError
from stackgan_dist.reproduce.beside import read_beside
from stackgan_dist.reproduce.cells import Annotations, Cell, Row, cell_name, cells_of, rows_of
from stackgan_dist.reproduce.commands import Command, score_command, train_command
from stackgan_dist.reproduce.comparability import Filled, Findings
from stackgan_dist.reproduce.paper import Table
from stackgan_dist.reproduce.progress import CLASSIFIER, Judge, Progress, given_judge, own_judge, progress_of
from stackgan_dist.reproduce.report import as_json, as_markdown, as_text
from stackgan_dist.reproduce.runner import Job, run
from stackgan_dist.reproduce.scale import SCALES, Scale, ScaleName
from stackgan_dist.storage.files import join, write_bytes


@dataclass
class Reproduction:
    """A table on the packed set `url` at a scale, for these seeds; everything is kept in `folder`/DATA-SCALE.

    Raises UserError when the data set lacks a size or a split, or the folder holds something else.
    """

    table: Table
    url: str
    scale_name: ScaleName
    seeds: tuple[int, ...]
    folder: str
    classifier: str | None
    beside: tuple[str, ...] = ()
    """Folders with the scores of other systems' pictures."""

    scale: Scale = field(init=False)
    train: PackedSet = field(init=False)
    test: PackedSet = field(init=False)
    rows: list[Row] = field(init=False)
    cells: dict[str, tuple[int, Cell]] = field(init=False)
    """By the names of their jobs, SEED/CELL, with their seeds."""
    _given: Judge | None = field(init=False)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            given = " ".join(map(str, self.seeds))
            raise UserError(f"--seed is {given!r}; it must be one number from 0 on, or several different ones")
        self.scale = SCALES[self.scale_name]
        data = DataConfig(url=self.url)
        self.train, self.test = (open_packed(data, self.scale.largest, split) for split in ("train", "test"))
        self._given = given_judge(self.classifier) if self.classifier is not None else None
        annotations = Annotations.of(self.train)
        self.folder = join(self.folder, f"{self.train.index.name}-{self.scale_name}")
        self.rows = rows_of(self.table, self.train.index.name, annotations)
        self.cells = {
            f"{seed}/{name}": (seed, cell)
            for seed in self.seeds
            for name, cell in cells_of(self.rows, self.url, annotations, self.scale, self.folder, seed).items()
        }

    def judge(self) -> Judge:
        """The classifier, as it is now."""
        return self._given or own_judge(self.folder, self.url, self.test, self.scale)

    def jobs(self, cell: str | None = None) -> list[Job]:
        """All jobs as they stand now, each behind those that it needs; or only those of one cell.

        Raises UserError when there is no such cell.
        """
        names = [CLASSIFIER, *self.cells] if self.judge().command else [*self.cells]
        if cell is not None:
            wanted = [name for name in names if name.rpartition("/")[2] == cell]
            if not wanted:
                known = ", ".join(dict.fromkeys(name.rpartition("/")[2] for name in names))
                raise UserError(f"--cell is {cell!r}; the cells of this table on this data are {known}")
            names = wanted
        return [self._job(name) for name in names]

    def carry_out(self, cell: str | None, ranks: int) -> None:
        """Do what is left of all jobs, or of one cell's; UserError when something fails or is missing."""
        jobs = self.jobs(cell)
        for number, job in enumerate(jobs, start=1):
            for need in job.needs:
                self._check_ready(need, job.name)
            for command in self._job(job.name).commands:
                print(f"[{number}/{len(jobs)}] {job.name}: {command.module}", flush=True)
                run(command, ranks)
                if command.module == "train" and not self._progress(job.name).is_trained:
                    raise UserError(f"the training of {job.name} was stopped; start again, it goes on")
            print(f"[{number}/{len(jobs)}] {job.name}: {self._job(job.name).state}", flush=True)

    def publish(self) -> str:
        """Write the table as text, Markdown and JSON; returns the text, with the files' names."""
        filled = []
        for row in self.rows:
            name = cell_name(row.preset, self.scale)
            found = {seed: self.cells.get(f"{seed}/{name}") for seed in self.seeds}
            cells = {seed: pair[1] for seed, pair in found.items() if pair}
            filled.append(Filled(row, cells, {seed: self._progress(f"{seed}/{name}") for seed in cells}))
        digest = self.judge().weights_sha256
        beside = read_beside(self.beside, digest, self.test, self.scale.protocol)
        findings = Findings(self.table, self.scale_name, self.scale, self.train, self.test, self.seeds, filled, beside)
        text = as_text(findings)
        files = {"txt": text, "md": as_markdown(findings), "json": as_json(findings)}
        try:
            for ending, content in files.items():
                write_bytes(join(self.folder, f"{self.table}.{ending}"), content.encode())
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; choose another --folder") from error
        return f"{text}\nwritten to {join(self.folder, self.table)}.txt, .md and .json"

    def _job(self, name: str) -> Job:
        judge = self.judge()
        if name == CLASSIFIER:
            assert judge.command is not None
            is_made = judge.weights_sha256 is not None
            return Job(name, (), "made" if is_made else "not begun", () if is_made else (judge.command,))
        seed, cell = self.cells[name]
        progress = progress_of(cell, judge, self.scale.protocol)
        commands: list[Command] = [] if progress.is_trained else [train_command(cell)]
        if not progress.scores:
            commands.append(score_command(cell, judge.spec, self.scale.protocol, join(self.folder, "real")))
        needs = ([CLASSIFIER] if judge.command else []) + ([f"{seed}/{cell.stage1}"] if cell.stage1 else [])
        return Job(name, tuple(needs), progress.text, tuple(commands))

    def _progress(self, name: str) -> Progress:
        return progress_of(self.cells[name][1], self.judge(), self.scale.protocol)

    def _check_ready(self, need: str, job: str) -> None:
        is_ready = self._job(CLASSIFIER).state == "made" if need == CLASSIFIER else self._progress(need).is_trained
        if not is_ready:
            words = [self.table, "--data", self.url, "--scale", self.scale_name, "--seed", *map(str, self.seeds)]
            words += ["--folder", self.folder.rpartition("/")[0], "--cell", need.rpartition("/")[2]]
            words += ["--classifier", self.classifier] if self.classifier is not None else []
            raise UserError(f"{job} needs {need} first:\n  python -m stackgan_dist.reproduce {shlex.join(words)}")
