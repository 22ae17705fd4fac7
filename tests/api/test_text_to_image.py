"""Pictures from Python: the same as those of the command, for a run, a folder of stages and a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.tiny import BASELINES, gaudy_convolutions, tiny_config, train_alone
from PIL import Image

import stackgan_dist
from stackgan_dist import UserError, generate
from stackgan_dist.generation.grid import to_pictures
from stackgan_dist.models.baselines import deconvolution

SENTENCES = ["a small red bird", "a yellow bird with black wings"]


def _same(ours: Image.Image, theirs: Image.Image) -> bool:
    return ours.size == theirs.size and ours.tobytes() == theirs.tobytes()


def _by_the_command(patch: pytest.MonkeyPatch, out: Path, *arguments: object) -> dict[str, Image.Image]:
    patch.setattr("sys.argv", ["generate", "--out", str(out), *map(str, arguments)])
    generate.main()
    return {path.stem: Image.open(path) for path in out.iterdir()}


def test_python_and_the_command_make_the_same_pictures(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--count", 3, "--seed", 7, *SENTENCES]
    for run in three_runs[1:]:
        written = _by_the_command(monkeypatch, tmp_path / run.name, "--run", run, *arguments)
        generator = stackgan_dist.load(run)
        rows = generator.generate(SENTENCES, count=3, seed=7)
        assert [len(row) for row in rows] == [3, 3]
        for number, row in enumerate(rows):
            for picture, made in enumerate(row):
                assert _same(made, written[f"{number:03d}-{picture:03d}"])
        assert len({picture.tobytes() for row in rows for picture in row}) == 6
    staged = generator.stages(SENTENCES[1], count=3, seed=7)
    assert staged.low_resolution is not None
    for picture, made in enumerate(to_pictures(staged.low_resolution)):
        assert _same(made, written[f"001-{picture:03d}-stage1"])


def test_one_sentence_or_several_and_pictures_or_tensors(three_runs: tuple[Path, Path, Path]) -> None:
    generator = stackgan_dist.load(three_runs[2].parent / three_runs[2].name, device="cpu")
    one = generator.generate(SENTENCES[0], count=2)
    assert [picture.size for picture in one] == [(128, 128)] * 2
    tensor = generator.generate(SENTENCES[0], count=2, output_type="pt")
    assert (tensor.shape, tensor.dtype) == ((2, 3, 128, 128), torch.float32)
    assert -1 <= float(tensor.min()) < float(tensor.max()) <= 1
    assert all(map(_same, to_pictures(tensor), one))
    both = generator.generate(tuple(SENTENCES), count=2, output_type="pt")
    assert both.shape == (2, 2, 3, 128, 128)
    assert torch.equal(both[0], tensor)
    assert generator.generate([SENTENCES[0]], count=17, output_type="pt").shape[1] == 17  # more than one batch


def test_it_knows_where_it_comes_from(three_runs: tuple[Path, Path, Path]) -> None:
    run = three_runs[1]
    generator = stackgan_dist.load(run / "checkpoints" / "step-000000005")
    assert generator.checkpoint == str(run / "checkpoints" / "step-000000005")
    assert (generator.step, generator.image_size, generator.config.run.name) == (5, 64, "stage1")
    assert repr(generator) == f"<stage-I of 64 px, step 5: {generator.checkpoint}>"
    raw = stackgan_dist.load(run, weights="raw").generate(SENTENCES[0], count=1)[0]
    assert not _same(raw, generator.generate(SENTENCES[0], count=1)[0])
    one, several = generator.encode(SENTENCES[0]), generator.encode(SENTENCES)
    assert (one.shape, several.shape, several.dtype) == ((256,), (2, 256), np.float32)
    assert np.array_equal(several[0], one)


def test_a_path_between_two_sentences_begins_and_ends_with_their_pictures(
    three_runs: tuple[Path, Path, Path],
) -> None:
    generator = stackgan_dist.load(three_runs[1])
    ends = [generator.generate(sentence, count=4, seed=3)[2] for sentence in SENTENCES]
    path = generator.interpolate(*SENTENCES, steps=4, seed=3, noise=2)
    assert len(path) == 4
    assert _same(path[0], ends[0])
    assert _same(path[-1], ends[1])
    assert len({picture.tobytes() for picture in path}) == 4
    embeddings = [generator.encode(sentence) for sentence in SENTENCES]
    assert all(map(_same, generator.interpolate(*embeddings, steps=4, seed=3, noise=2), path))


def test_what_cannot_be_is_said(three_runs: tuple[Path, Path, Path]) -> None:
    generator = stackgan_dist.load(three_runs[1])
    with pytest.raises(UserError, match="count is 0, it must be a whole number from 1 on"):
        generator.generate(SENTENCES[0], count=0)
    with pytest.raises(UserError, match="seed is -1"):
        generator.generate(SENTENCES[0], seed=-1)
    with pytest.raises(UserError, match="there is nothing to generate"):
        generator.generate([])
    with pytest.raises(UserError, match="sentence 2 is empty"):
        generator.generate([SENTENCES[0], " "])
    with pytest.raises(UserError, match="stage-I is not"):
        generator.generate(SENTENCES[0], place=(0, 0, 1, 1))
    with pytest.raises(UserError, match=r"shape \(3,\); this generator was trained on \(256,\)"):
        generator.stages(np.zeros(3, np.float32))
    with pytest.raises(UserError, match="take 'pil' for pictures"):
        generator.generate(SENTENCES[0], output_type="np")  # type: ignore[call-overload]
    with pytest.raises(UserError, match="there is no run at"):
        stackgan_dist.load(three_runs[1].parent / "none")
    with pytest.raises(UserError, match="take --device cpu"):
        stackgan_dist.load(three_runs[1], device="teapot")


def test_a_damaged_checkpoint_draws_a_warning(three_runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(three_runs[1], tmp_path / "run"))
    shutil.copytree(run / "checkpoints" / "step-000000005", run / "checkpoints" / "step-000000006")
    (run / "checkpoints" / "step-000000006" / "state.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="passed over: checkpoint .*step-000000006 has 0 bytes") as warned:
        assert stackgan_dist.load(run).step == 5
    assert warned[0].filename == __file__


def test_models_that_are_told_where_the_object_is(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deconvolution, "initialise_convolutions", gaudy_convolutions)
    boxed = stackgan_dist.load(
        train_alone(tiny_config(str(packed), tmp_path, "box", model=BASELINES["gawwn-box"]), None)
    )
    arrays = [np.array([x, 0.1, 0.4, 0.5], np.float32) for x in (0.0, 0.5)]
    places = [(0.0, 0.1, 0.4, 0.5), *arrays]
    left, by_array, right = (boxed.generate("a red bird", count=1, place=each, output_type="pt") for each in places)
    assert torch.equal(left, by_array)
    assert not torch.equal(left, right)
    with pytest.raises(UserError, match="place is None; this model needs LEFT TOP WIDTH HEIGHT"):
        boxed.generate("a red bird")
    with pytest.raises(UserError, match=r"place is \(2, 0, 1, 1\); this model needs LEFT"):
        boxed.generate("a red bird", place=(2, 0, 1, 1))
