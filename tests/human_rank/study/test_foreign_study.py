"""Studies of pictures that were made elsewhere: captions from tables, files beside them, and names."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from stackgan_dist.errors import UserError
from stackgan_dist.generation.grid import to_png
from stackgan_dist.generation.names import GRID, SENTENCE, picture_name
from stackgan_dist.human_rank import __main__ as human_rank
from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.human_rank.study.foreign import ForeignMethod

SENTENCES = ("a red bird", "a blue bird", "a bird with long legs, and a crown")


def _picture(file: Path, colour: int, size: tuple[int, int] = (16, 16)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 0, 0)).save(file)


def _by_name(folder: Path, sentences: tuple[str, ...] = SENTENCES[:2], images: int = 2, colour: int = 10) -> Path:
    for sentence in sentences:
        for number in range(images):
            _picture(folder / f"{sentence.replace(' ', '_')}-{number}.png", colour + number)
    return folder


def _by_table(
    folder: Path, name: str = "captions.csv", sentences: tuple[str, ...] = SENTENCES, images: int = 2
) -> Path:
    rows = []
    for i, sentence in enumerate(sentences):
        for number in range(images):
            _picture(folder / "pictures" / f"{i}-{number}.jpg", 100 + number, (32, 32))
            rows.append((f"pictures/{i}-{number}.jpg", sentence))
    if name.endswith("jsonl"):
        text = "".join(json.dumps({"file_name": file, "text": sentence}) + "\n" for file, sentence in rows)
    else:
        mark = "\t" if name.endswith("tsv") else ","
        text = mark.join(("file", "caption")) + "\n" + "".join(f'{file}{mark}"{said}"\n' for file, said in rows)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv", "metadata.jsonl"])
def test_captions_in_a_table(tmp_path: Path, name: str) -> None:
    method = ForeignMethod.read(_by_table(tmp_path, name), "theirs")
    assert set(method.pictures) == set(SENTENCES)
    assert [len(files) for files in method.pictures.values()] == [2, 2, 2]


def test_captions_in_names_and_beside_pictures(tmp_path: Path) -> None:
    assert set(ForeignMethod.read(_by_name(tmp_path / "names"), "x").pictures) == {"a red bird", "a blue bird"}
    for number, sentence in enumerate(SENTENCES):
        _picture(tmp_path / "beside" / f"{number}.png", 0)
        (tmp_path / "beside" / f"{number}.txt").write_text(f"{sentence}\n")
    assert set(ForeignMethod.read(tmp_path / "beside", "x").pictures) == set(SENTENCES)


def test_what_generate_wrote(tmp_path: Path) -> None:
    for number, sentence in enumerate(SENTENCES):
        for stage1 in (False, True):
            file = tmp_path / picture_name(number, 0, stage1=stage1)
            file.write_bytes(to_png(Image.new("RGB", (16, 16)), {SENTENCE: sentence}))
    (tmp_path / GRID).write_bytes(to_png(Image.new("RGB", (64, 64)), {SENTENCE: "\n".join(SENTENCES)}))
    method = ForeignMethod.read(tmp_path, "a run")
    assert {sentence: [file.name for file in files] for sentence, files in method.pictures.items()} == {
        sentence: [picture_name(number, 0)] for number, sentence in enumerate(SENTENCES)
    }


def test_pictures_are_seen_as_the_scores_see_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, turned in (("ours", False), ("theirs", True)):
        for sentence in SENTENCES[:2]:
            picture = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
            picture.paste((0, 0, 250, 255), (0, 0, 16, 4))
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = 3 if turned else 1
            (tmp_path / name).mkdir(exist_ok=True)
            picture.save(tmp_path / name / f"{sentence}.png", exif=exif)
    arguments = ["--pictures", tmp_path / "ours", tmp_path / "theirs", "--images", 1, "--out", tmp_path / "study"]
    assert _build(monkeypatch, *arguments) == 0
    for method, (top, bottom) in enumerate([((0, 0, 250), (255,) * 3), ((255,) * 3, (0, 0, 250))]):
        with Image.open(StudyFolder(tmp_path / "study").picture_file(0, method)) as row:
            assert (row.getpixel((8, 1)), row.getpixel((8, 14))) == (top, bottom)


def _build(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["human_rank", "build", *map(str, arguments)])
    try:
        human_rank.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_study_of_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _by_name(tmp_path / "ours", SENTENCES[:2]), _by_table(tmp_path / "theirs", sentences=SENTENCES[:2])
    real = tmp_path / "real"
    for number in range(3):
        _picture(real / f"{number}.jpg", 200, (40, 30))
    arguments = ["--pictures", ours, theirs, "--images", 2, "--at-once", 2, "--ties", "--out", tmp_path / "study"]
    assert _build(monkeypatch, *arguments, "--attention-checks", 1, "--real", real) == 0
    folder = StudyFolder(tmp_path / "study")
    study = folder.read()
    assert [method.name for method in study.methods] == ["ours", "theirs"]
    assert [method.image_size for method in study.methods] == [16, 32]
    assert {question.sentence for question in study.questions if not question.check} == set(SENTENCES[:2])
    assert (study.sentences, study.checks, study.protocol.ties) == (2, 1, True)
    with Image.open(folder.picture_file(0, 0)) as row:
        assert row.size == (32, 16)
        assert [row.getpixel((x, 8)) for x in (8, 24)] == [(10, 0, 0), (11, 0, 0)]
    with Image.open(folder.picture_file(2, 0)) as row:
        assert row.size == (64, 32)
        assert abs(row.getpixel((8, 8))[0] - 200) < 3  # type: ignore[index]
    with Image.open(folder.picture_file(2, 1)) as row:
        assert len(row.getcolors(64 * 32) or ()) > 1_000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("sentences", r"theirs has no pictures of 1 sentences that .*ours has: 'a blue bird'"),
        ("few", r"theirs has 1 pictures of 'a (red|blue) bird', and --images asks for 2"),
        ("shape", r"has 16x12 pixels; the page shows squares"),
        ("sizes", r"theirs has pictures of \[\(16, 16\), \(20, 20\)\] pixels"),
        ("broken", r"red_bird-0.png is not a picture that can be read"),
        ("checks", r"give a folder of real ones with --real"),
        ("uncaptioned", r"the table of captions has none for extra.png"),
        ("columns", r"captions.csv has the columns a, b; one of file, file_name"),
        ("csv", r"captions.csv cannot be read: field larger than field limit"),
        ("null", r"a_blue_bird-0.png has no caption"),
        ("wordless", r"000-001.png has no caption: .* its name has no words"),
        ("short", r"a_red_bird-0.png has no caption"),
        ("no file", r"captions.jsonl: row 2 has no file; add it, or remove the row"),
        ("no object", r'captions.jsonl cannot be read: the line "a red bird" is no JSON object'),
        ("no text", r"a_red_bird-0.txt cannot be read"),
        ("real", r"broken.(png|jpg) is not a picture that can be read"),
        ("empty", r"nothing has no pictures"),
    ],
)
def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spoil: str, message: str
) -> None:
    ours, theirs = _by_name(tmp_path / "ours"), _by_name(tmp_path / "theirs")
    more: list[object] = ["--attention-checks", 1] if spoil == "checks" else []
    match spoil:
        case "sentences":
            for file in theirs.glob("*blue*"):
                file.unlink()
        case "few":
            for file in theirs.glob("*-1.png"):
                file.unlink()
        case "shape":
            _picture(theirs / "a_red_bird-0.png", 0, (16, 12))
        case "sizes":
            _picture(theirs / "a_red_bird-1.png", 0, (20, 20))
        case "broken":
            (theirs / "a_red_bird-0.png").write_bytes(b"no picture")
        case "uncaptioned":
            theirs = _by_table(tmp_path / "table", sentences=SENTENCES[:2])
            _picture(theirs / "extra.png", 0)
        case "columns":
            (theirs / "captions.csv").write_text("a,b\n1,2\n")
        case "csv":
            (theirs / "captions.csv").write_text(f"file,caption\na_red_bird-0.png,{'x' * 200_000}\n")
        case "null":
            rows = [{"file": file.name, "caption": None} for file in theirs.glob("*.png")]
            (theirs / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "short":
            (theirs / "captions.csv").write_text("file,caption\na_red_bird-0.png\na_blue_bird-0.png,a blue bird\n")
            for file in [*theirs.glob("*-1.png")]:
                file.unlink()
        case "no file":
            rows = [{"file": "a_red_bird-0.png", "caption": "a red bird"}, {"caption": "a red bird"}]
            (theirs / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        case "no object":
            (theirs / "captions.jsonl").write_text('"a red bird"\n')
        case "wordless":
            _picture(theirs / "000-001.png", 0)
        case "no text":
            (theirs / "a_red_bird-0.txt").write_bytes(b"\xff\xfe\xff")
        case "real":
            (theirs.parent / "real").mkdir()
            for name in ("broken.png", "broken.jpg"):
                (theirs.parent / "real" / name).write_bytes(b"no picture")
            more = ["--attention-checks", 1, "--real", theirs.parent / "real"]
        case "empty":
            theirs = tmp_path / "nothing"
            theirs.mkdir()
    code = _build(monkeypatch, "--pictures", ours, theirs, "--images", 2, "--out", tmp_path / "study", *more)
    assert code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "study" / "study.json").exists()


def test_a_method_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder of pictures"):
        ForeignMethod.read(tmp_path / "nowhere", "x")


def _methods(folder: Path) -> tuple[Path, Path]:
    return _by_name(folder / "ma"), _by_name(folder / "mb")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        ("study/pictures", "study", r"ma lies in .*study, where the study's own pictures are to be written"),
        ("real", "real/..", r"ma lies in .*, where the study's own"),
        ("elsewhere", "study", r"study holds 1 files or folders already \(pictures is one\).* has no \.building"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_build_removes_nothing_of_the_user_s(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inputs: str,
    out: str,
    message: str,
    begun: bool,
) -> None:
    methods = _methods(tmp_path / inputs)
    for name in ("2024-05-01 holiday.png", "000-000.png", "00001-0.png"):
        _picture(tmp_path / "study" / "pictures" / name, 0)
    if begun:
        (tmp_path / out / ".building").touch()
    if not (begun and inputs == "elsewhere"):
        before = _contents(tmp_path)
        assert _build(monkeypatch, "--pictures", *methods, "--images", 2, "--out", tmp_path / out) == 2
        assert re.search(message, capsys.readouterr().err)
        assert _contents(tmp_path) == before
        return
    assert _build(monkeypatch, "--pictures", *methods, "--images", 2, "--out", tmp_path / out) == 0
    names = sorted(file.name for file in (tmp_path / "study" / "pictures").iterdir())
    assert names == [
        "000-000.png", "00000-0.png", "00000-1.png", "00001-0.png", "00001-1.png", "2024-05-01 holiday.png",
    ]  # fmt: skip


def test_a_build_that_was_stopped_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, study = _methods(tmp_path), tmp_path / "study"
    arguments = ["--pictures", *methods, "--images", 2, "--out", study]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StudyFolder, "write", stopped)
        assert _build(patch, *arguments) == 130
    assert (study / ".building").exists()
    _picture(study / "pictures" / "00007-3.png", 0)  # of a study of more sentences
    assert _build(monkeypatch, *arguments) == 0
    assert sorted(file.name for file in study.iterdir()) == ["pictures", "study.json"]
    assert not (study / "pictures" / "00007-3.png").exists()


def test_a_part_of_what_generate_was_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = _methods(tmp_path)
    (theirs / ".writing-0").touch()
    assert _build(monkeypatch, "--pictures", ours, theirs, "--images", 2, "--out", tmp_path / "study") == 2
    assert re.search(r"mb holds \.writing-0, .*may be a part of them", capsys.readouterr().err)


def test_folders_that_are_not_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    methods = _methods(tmp_path)
    for arguments, flag in (
        (["--pictures", *methods, "--out", "s3://bucket/study"], "--out is s3://bucket/study"),
        (["--pictures", *methods[:1], "s3://bucket/mb", "--out", "study"], "--pictures is s3://bucket/mb"),
    ):
        assert _build(monkeypatch, *arguments, "--images", 2) == 2
        assert f"{flag}, which is not on a disk of this machine" in capsys.readouterr().err
    for door in ("serve", "report"):
        monkeypatch.setattr(sys, "argv", ["human_rank", door, "s3://bucket/study"])
        with pytest.raises(SystemExit):
            human_rank.main()
        assert "STUDY is s3://bucket/study, which is not on a disk" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"ma", "mb"}
    urls = [f"file://{method}" for method in methods]
    assert _build(monkeypatch, "--pictures", *urls, "--images", 2, "--out", f"file://{tmp_path}/study") == 0
    assert StudyFolder(tmp_path / "study").read().sentences == 2
