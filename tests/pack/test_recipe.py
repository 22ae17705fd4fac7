from pathlib import Path

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.pack import recipe as recipe_module
from stackgan_dist.pack.recipe import RECIPE_FOLDERS, Recipe, load_recipe
from stackgan_dist.pack.sources import SOURCES

MINIMAL = 'name = "mine"\nsource = "painted"\ntext_encoder = "ngrams"\n'


def test_a_recipe_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + "sizes = [64]\nseed = 3\n[options]\nseed = 4\n")
    assert load_recipe(str(path)) == Recipe("mine", "painted", "ngrams", sizes=(64,), seed=3, options={"seed": 4})


def test_the_recipes_that_come_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("painted", "oxford102", "cub", "coco"):
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.source in SOURCES
        assert recipe.sizes == (76, 304)
    # as in a wheel: the first folder holds them, there is no checkout
    (tmp_path / "painted.toml").write_text(MINIMAL)
    monkeypatch.setattr(recipe_module, "RECIPE_FOLDERS", (tmp_path, tmp_path / "no-checkout"))
    assert load_recipe("painted").name == "mine"
    assert RECIPE_FOLDERS[0].name == "recipes"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("size = [64]", "unknown key 'size'; a recipe has: name, source"),
        ("sizes = 64", "sizes is 64, it must be a list of whole numbers"),
        ('sizes = ["64"]', "sizes holds '64', each must be a whole number"),
        ("seed = true", "seed is True, it must be a whole number"),
        ("sizes = [76, 76]", "give different sides"),
        ("sizes = []", "give different sides"),
        ("splits = []", "give at least one"),
        ("sizes = [76, 7]", "sizes holds 7, each must be from 8"),
        ("shard_mb = nan", "shard_mb is nan, it must be finite and above 0"),
        ("samples_per_shard = 1", "samples_per_shard is 1, it must be at least 2"),
        ("seed = -1", "seed is -1, it must be at least 0"),
        ("options = 3", "options must be a table"),
        ("sizes = [", "is not TOML"),
    ],
)
def test_faults_are_named(tmp_path: Path, extra: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + extra + "\n")
    with pytest.raises(UserError) as caught:
        load_recipe(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_recipes_and_keys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known: coco, cub, folder, oxford102, painted, parquet, webdataset"):
        load_recipe("birds")
    with pytest.raises(UserError, match=r"no recipe .*mine\.toml"):
        load_recipe(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text('name = "mine"\nsource = "painted"\n')
    with pytest.raises(UserError, match="lacks the key 'text_encoder'"):
        load_recipe(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text(MINIMAL.replace("ngrams", "bert"))
    with pytest.raises(UserError, match="known encoders: ngrams, minilm"):
        load_recipe(str(tmp_path / "mine.toml"))
