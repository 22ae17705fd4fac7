"""Pictures of sentences, of StackGAN and of the baselines: a seed decides the bytes, whatever else is generated."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.tiny import BASELINES, gaudy_convolutions, tiny_config, train_alone
from PIL import Image
from scored import assert_same_score, score, score_on_ranks
from small_classifier import small_classifier

from stackgan_dist import generate
from stackgan_dist.colour_agreement import __main__ as colour_agreement
from stackgan_dist.models.baselines import deconvolution
from stackgan_dist.scores import __main__ as scores
from stackgan_dist.storage.folder import Folder

SENTENCES = ["a small red bird", "a yellow bird with black wings"]


@pytest.fixture(scope="module", autouse=True)
def _little_work() -> Iterator[None]:
    with small_classifier():
        yield


@pytest.fixture
def run(gaudy_stages: Path) -> Path:
    """A folder with runs of both stages."""
    return gaudy_stages


def _generate(patch: pytest.MonkeyPatch, *arguments: object) -> None:
    patch.setattr("sys.argv", ["generate", *map(str, arguments)])
    generate.main()


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).convert("RGB").tobytes() for path in sorted(folder.iterdir())}


class TestGenerate:
    def test_stage1(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _generate(monkeypatch, "--run", run / "stage1", "--count", 3, "--out", tmp_path, *SENTENCES)
        names = [f"{sentence:03d}-{picture:03d}.png" for sentence in range(2) for picture in range(3)]
        assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "grid.png"]
        assert {Image.open(tmp_path / name).size for name in names} == {(64, 64)}
        grid = Image.open(tmp_path / "grid.png")
        assert grid.width > 3 * 128
        assert 2 * 128 < grid.height < 3 * 128
        assert len(set(_pictures(tmp_path).values())) == 7  # noise and sentences make a difference

    def test_stage2_beside_the_stage1_it_started_from(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = ["--count", 2, "--seed", 4, *SENTENCES]
        _generate(monkeypatch, "--run", run, "--out", tmp_path / "both", *arguments)
        _generate(monkeypatch, "--run", run / "stage1", "--out", tmp_path / "first", *arguments)
        both, first = _pictures(tmp_path / "both"), _pictures(tmp_path / "first")
        for name in ("000-000", "000-001", "001-000", "001-001"):
            assert Image.open(tmp_path / "both" / f"{name}.png").size == (128, 128)
            low = Image.open(tmp_path / "both" / f"{name}-stage1.png")
            assert low.size == (64, 64)
            assert both[f"{name}-stage1.png"] == first[f"{name}.png"]
        assert len(both) == 9
        grid = Image.open(tmp_path / "both" / "grid.png")
        lefts = [260, 260 + 131, 260 + 131 + 143, 260 + 2 * 131 + 143]  # two pairs set apart, behind the sentences
        assert grid.width == lefts[-1] + 128 + 6
        for left, name in zip(lefts, ("000-000-stage1", "000-000", "000-001-stage1", "000-001"), strict=True):
            cell = grid.crop((left, 26, left + 128, 26 + 128))
            enlarged = Image.open(tmp_path / "both" / f"{name}.png").resize((128, 128), Image.Resampling.NEAREST)
            assert cell.tobytes() == enlarged.tobytes(), name

    def test_the_seed_decides_the_bytes_and_the_number_of_pictures_does_not(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, seed, count in (("a", 1, 2), ("b", 1, 2), ("more", 1, 5), ("other", 2, 2)):
            _generate(
                monkeypatch, "--run", run, "--out", tmp_path / name, "--seed", seed, "--count", count, SENTENCES[0]
            )
        files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
        a, more, other = (_pictures(tmp_path / name) for name in ("a", "more", "other"))
        difference = [abs(x - y) for x, y in zip(a["000-001.png"], more["000-001.png"], strict=True)]
        assert max(difference) <= 1  # a batch of another size may round differently
        assert a["000-001.png"] != other["000-001.png"]

    def test_average_and_raw_weights_differ_and_the_run_is_where_pictures_go(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _generate(monkeypatch, "--run", run / "stage1", "--count", 1, SENTENCES[0])
        ema = _pictures(run / "stage1" / "generated" / "0001-a-small-red-bird")
        checkpoint = run / "stage1" / "checkpoints" / "step-000000005"
        _generate(monkeypatch, "--run", checkpoint, "--out", tmp_path, "--weights", "raw", "--count", 1, SENTENCES[0])
        assert _pictures(tmp_path)["000-000.png"] != ema["000-000.png"]
        assert f"generated by {checkpoint} (raw)" in capsys.readouterr().out

    def test_a_second_call_into_a_run_leaves_the_first_one_s_pictures_alone(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(shutil.copytree(run / "stage1", tmp_path / "run", ignore=shutil.ignore_patterns("generated")))
        _generate(monkeypatch, "--run", folder, "--count", 3, *SENTENCES)
        first = {path.name: path.read_bytes() for path in (folder / "generated" / "0001-a-small-red-bird").iterdir()}
        _generate(monkeypatch, "--run", folder, "--count", 1, "--seed", 1, SENTENCES[1])
        generated = folder / "generated"
        assert sorted(path.name for path in generated.iterdir()) == [
            "0001-a-small-red-bird",
            "0002-a-yellow-bird-with-black-wings",
        ]
        assert first == {path.name: path.read_bytes() for path in (generated / "0001-a-small-red-bird").iterdir()}
        second = sorted(path.name for path in (generated / "0002-a-yellow-bird-with-black-wings").iterdir())
        assert second == ["000-000.png", "grid.png"]

    def test_two_calls_never_mix_in_the_folder_that_is_given(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--run", run / "stage1", "--out", tmp_path / "out"]
        _generate(monkeypatch, *arguments, "--count", 3, *SENTENCES)
        (tmp_path / "out" / "notes.txt").write_text("mine")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        with pytest.raises(SystemExit):
            _generate(monkeypatch, *arguments, "--count", 1, SENTENCES[1])
        assert "holds 8 files already (000-000.png is one); give another folder with --out" in capsys.readouterr().err
        assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        _generate(monkeypatch, *arguments, "--count", 1, "--overwrite", SENTENCES[1])
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000-000.png", "grid.png", "notes.txt"]

    def test_pictures_of_others_with_the_same_names_are_not_replaced(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("grid.png", "000-000.png"):
            out = tmp_path / name.partition(".")[0]
            out.mkdir()
            Image.new("RGB", (8, 8)).save(out / name)
            before = (out / name).read_bytes()
            with pytest.raises(SystemExit):
                _generate(monkeypatch, "--run", run / "stage1", "--out", out, "--overwrite", SENTENCES[0])
            assert f"holds {name}, which would be replaced" in capsys.readouterr().err
            assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: before}

    def test_what_was_written_until_sigterm_is_not_taken_for_all(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--run", run / "stage1", "--out", tmp_path / "out", "--count", 4]
        write = Folder.write

        def stopped(folder: Folder, name: str, data: bytes) -> None:
            if name == "000-002.png":
                os.kill(os.getpid(), signal.SIGTERM)
            write(folder, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", stopped)
            with pytest.raises(SystemExit):
                _generate(patch, *arguments, SENTENCES[0])
        assert len(list((tmp_path / "out").glob("*.png"))) == 2
        monkeypatch.setattr(
            "sys.argv", ["scores", "--pictures", str(tmp_path / "out"), "--against", str(tmp_path / "out")]
        )
        with pytest.raises(SystemExit):
            scores.main()
        assert "may be a part of them" in capsys.readouterr().err
        _generate(monkeypatch, *arguments, "--overwrite", SENTENCES[0])
        names = [*(f"000-{number:03d}.png" for number in range(4)), "grid.png"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names

    def test_words_without_quotes_are_noted(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        for words, noted in ((["small", "red", "bird"], True), (["a red bird", "bird", "bird"], False)):
            folder = tmp_path / str(noted)
            _generate(monkeypatch, "--run", run / "stage1", "--count", 1, "--out", folder, *words)
            said = "note: 3 sentences of one word each; one of several words stands in quotes"
            assert (said in capsys.readouterr().out) == noted

    def test_a_picture_says_what_it_is(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sentences = [SENTENCES[0], "ein roter Vogel, 红色的鸟, a red bird"]
        _generate(monkeypatch, "--run", run, "--count", 2, "--seed", 7, "--out", tmp_path, *sentences)
        common = {
            "seed": "7",
            "weights": "ema",
            "checkpoint": str(run / "stage2" / "checkpoints" / "step-000000005"),
        }
        for number, sentence in enumerate(sentences):
            for picture in range(2):
                for end in ("", "-stage1"):
                    image: Any = Image.open(tmp_path / f"{number:03d}-{picture:03d}{end}.png")
                    image.load()
                    assert image.text == {"sentence": sentence, "number": str(picture), **common}
        grid: Any = Image.open(tmp_path / "grid.png")
        grid.load()
        assert grid.text == {"sentence": "\n".join(sentences), **common}


@pytest.fixture(scope="module", params=BASELINES)
def baseline(request: pytest.FixtureRequest, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that StackGAN is compared with, of five steps, whose pictures are gaudy too."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deconvolution, "initialise_convolutions", gaudy_convolutions)
        train_alone(tiny_config(str(packed), folder, request.param, model=BASELINES[request.param]), None)
    return folder / request.param


class TestBaselines:
    def test_it_generates_at_the_given_place(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = {
            "gan-int-cls": [[]],
            "gawwn-box": [["0.1", "0.2", "0.3", "0.3"], ["0.5", "0.2", "0.3", "0.3"]],
            "gawwn-keypoints": [["beak=0.2,0.4", "tail=0.6,0.5"], ["beak=0.8,0.4"]],
            "df-gan": [[]],
        }[baseline.name]
        written = []
        for number, place in enumerate(places):
            place_flag = ["--place", *place] if place else []
            _generate(
                monkeypatch, "--run", baseline, "--count", 2, "--out", tmp_path / str(number), SENTENCES[0], *place_flag
            )
            written.append(_pictures(tmp_path / str(number)))
        assert all(pictures.keys() == {"000-000.png", "000-001.png", "grid.png"} for pictures in written)
        if len(written) == 2:
            assert written[0] != written[1]

    def test_a_place_that_does_not_fit_the_model_is_refused(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wrong, message = {
            "gan-int-cls": (["--place", "0", "0", "1", "1"], "gan-int-cls is not"),
            "df-gan": (["--place", "0", "0", "1", "1"], "df-gan is not"),
            "gawwn-box": ([], "this model needs LEFT TOP WIDTH HEIGHT"),
            "gawwn-keypoints": (["--place", "knee=0,0"], "--place names 'knee'; this model knows crown, eye"),
        }[baseline.name]
        with pytest.raises(SystemExit):
            _generate(monkeypatch, "--run", baseline, "--out", tmp_path, SENTENCES[0], *wrong)
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        "baseline",
        [name if name == "gawwn-box" else pytest.param(name, marks=pytest.mark.slow) for name in BASELINES],
        indirect=True,
    )
    def test_one_and_two_ranks_give_the_same_score(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = ("--samples", 24, "--batch-size", 4)
        one = score(monkeypatch, colour_agreement, baseline, *arguments)
        assert_same_score(one, score_on_ranks(2, "colour_agreement", baseline, tmp_path / "log.txt", *arguments))
