"""Building a study: the paper's choice of sentences, the methods' own pictures, the same on any number of ranks."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.harness import torchrun
from human_rank.web.pages import Server
from PIL import Image

from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.errors import EXIT_USER_ERROR, UserError
from stackgan_dist.generation.generate import draw
from stackgan_dist.generation.grid import to_pixels
from stackgan_dist.human_rank import __main__ as human_rank
from stackgan_dist.human_rank.study.build import choose
from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.text import load_encoder

ARGUMENTS = ["--captions-per-class", "2", "--sentences", "30", "--images", "3", "--attention-checks", "2"]
NAMES = ["Stage-I, no CA", "Stage-I", "Stage-II"]

Runs = tuple[Path, Path, Path]


def _call(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    patch.setattr("sys.argv", ["human_rank", *map(str, arguments)])
    try:
        human_rank.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def built(three_runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    out = tmp_path_factory.mktemp("study") / "birds"
    with pytest.MonkeyPatch.context() as patch:
        assert _call(patch, "build", "--runs", *three_runs, "--names", *NAMES, "--out", out, *ARGUMENTS) == 0
    return StudyFolder(out)


def test_every_class_gives_as_many_sentences_and_none_comes_twice(packed: Path) -> None:
    captions = open_packed(DataConfig(url=str(packed)), 64, "test").captions()
    chosen = choose(captions, per_class=3, most=None, checks=2, images=2, seed=5)
    questions = [one.question for one in chosen]
    assert [question.check for question in questions] == [False] * (len(questions) - 2) + [True] * 2
    classes = {captions.caption(picture, 0).meta["class"] for picture in range(len(captions))}
    assert Counter(question.class_name for question in questions[:-2]) == dict.fromkeys(classes, 3)
    sentences = [question.sentence for question in questions[:-2]]
    assert len(set(sentences)) == len(sentences)
    for one in chosen:
        caption = captions.caption(one.picture, one.number)
        assert (caption.sentence, caption.meta["class"]) == (one.question.sentence, one.question.class_name)
        assert all(captions.caption(p, 0).meta["class"] == one.question.class_name for p in one.real)
    assert chosen != choose(captions, per_class=3, most=None, checks=2, images=2, seed=6)
    few = choose(captions, per_class=3, most=10, checks=0, images=2, seed=5)
    assert len(few) == 10
    assert {one.question.sentence for one in few} < set(sentences)


def test_the_pictures_are_those_of_the_run_for_the_sentence(built: StudyFolder, three_runs: Runs) -> None:
    study = built.read()
    assert [method.name for method in study.methods] == NAMES
    assert [method.image_size for method in study.methods] == [64, 64, 128]
    assert (study.sentences, study.checks, study.images) == (30, 2, 3)
    for number, run in enumerate(three_runs):
        trained = load_trained(str(run), print)
        for question in (0, 29):  # of different batches, the second one shorter
            text = load_encoder("ngrams").encode([study.questions[question].sentence] * 3)
            numbers = range(question * 3, question * 3 + 3)
            fakes = draw(trained.generator(torch.device("cpu")), trained.config.model, text, numbers, study.seed)
            expected = to_pixels(fakes.image).permute(2, 0, 3, 1).reshape(trained.config.model.image_size, -1, 3)
            strip = np.asarray(Image.open(built.picture_file(question, number)), dtype=np.int16)
            # Packed embeddings are float16, and a batch of another size rounds differently.
            assert np.abs(strip - expected.numpy().astype(np.int16)).mean() < 1.0
        assert strip.std() > 10


def test_attention_checks_are_real_pictures_and_noise(built: StudyFolder) -> None:
    for question in (30, 31):
        strips = [np.asarray(Image.open(built.picture_file(question, m)), dtype=np.float64) for m in range(3)]
        assert {strip.shape for strip in strips} == {(128, 3 * 128, 3)}

        def roughness(strip: np.ndarray) -> float:
            return float(np.abs(np.diff(strip, axis=1)).mean())

        assert roughness(strips[0]) < 20
        assert min(roughness(strip) for strip in strips[1:]) > 60


def test_any_number_of_ranks_builds_the_same_bytes(built: StudyFolder, three_runs: Runs, tmp_path: Path) -> None:
    arguments = [
        "build",
        "--runs",
        *map(str, three_runs),
        "--names",
        *NAMES,
        "--out",
        str(tmp_path / "two"),
        *ARGUMENTS,
    ]
    result = torchrun(2, "stackgan_dist.human_rank", arguments, tmp_path / "log", timeout_s=300)
    assert result.code == 0, result.output
    ours = {name: digest for name, digest in _digests(built.path).items() if not name.startswith("votes")}
    assert _digests(tmp_path / "two") == ours
    assert len(ours) == 32 * 3 + 1


def test_a_study_is_not_written_over(
    built: StudyFolder, three_runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _digests(built.path)
    arguments = ["build", "--runs", *three_runs, "--out", built.path, "--seed", "1", *ARGUMENTS]
    assert _call(monkeypatch, *arguments) == EXIT_USER_ERROR
    assert "holds a study already; choose another --out" in capsys.readouterr().err
    assert _digests(built.path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--runs", "{0}"], "--runs names 1 run(s); a ranking needs two or more"),
        (["--names", "A", "B"], "--names has 2 names for 3 runs"),
        (["--names", "A", "B", "A"], "methods need different names, found A, B, A"),
        (["--images", "0"], "--images is 0, it must be at least 1"),
        (["--runs", "{0}", "nowhere"], "there is no run at nowhere"),
        (["--split", "validation"], "python -m stackgan_dist.pack painted"),
    ],
)
def test_refusals(
    three_runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: list[str],
    message: str,
) -> None:
    given = [change.format(*three_runs) for change in changes]
    runs = [] if "--runs" in given else ["--runs", *three_runs]
    assert _call(monkeypatch, "build", *runs, *given, "--out", tmp_path / "out") == EXIT_USER_ERROR
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_other_doors_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["serve"], "there is nothing to serve"),
        (["serve", tmp_path], "there is no study at"),
        (["serve", "--run", tmp_path], "there is no run at"),
        (["report", tmp_path], "there is no study at"),
    ):
        assert _call(monkeypatch, *arguments) == EXIT_USER_ERROR
        assert message in capsys.readouterr().err


def test_study_json_is_plain(built: StudyFolder) -> None:
    content = json.loads(built.study_file.read_text())
    assert content["methods"][2]["checkpoint"].endswith("stage2/checkpoints/step-000000005")
    assert content["captions_digest"]


def test_the_commands_that_it_suggests(
    three_runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a study"
    with pytest.raises(UserError, match="there is no study at") as missing:
        StudyFolder(folder).read()
    words = shlex.split(str(missing.value).partition("stackgan_dist.human_rank ")[2])
    runs = dict(zip(("A", "B"), map(str, three_runs[:2]), strict=True))
    assert _call(monkeypatch, *(runs.get(word, word) for word in words), *ARGUMENTS) == 0
    words = shlex.split(capsys.readouterr().out.partition("stackgan_dist.human_rank serve ")[2].splitlines()[0])
    server = Server(tmp_path / "log", *words)
    try:
        assert server.ask("GET", "/")[0] == 200
    finally:
        server.kill()
