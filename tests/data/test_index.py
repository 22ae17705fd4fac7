"""index.json: nothing incomplete or of another version passes for a data set, and its digest is its identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackgan_dist.data.index import SCHEMA, Index, Shard, load_index, parse_index
from stackgan_dist.errors import UserError

INDEX = Index(
    name="painted",
    split="train",
    image_size=76,
    text_encoder="ngrams",
    text_dim=256,
    captions_per_image=10,
    classes=("a", "b"),
    samples=7,
    shards=(Shard("shard-000000.tar", 1000, "0" * 64, 3), Shard("shard-000001.tar", 2000, "1" * 64, 4)),
    recipe={"source": "painted", "options": {"seed": 0}},
)


def test_an_index_is_read_as_it_was_written() -> None:
    assert parse_index(INDEX.to_bytes(), "here") == INDEX


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(INDEX.to_bytes())
    assert load_index(str(tmp_path)).digest == hashlib.sha256((tmp_path / "index.json").read_bytes()).hexdigest()


def test_the_digest_changes_with_every_shard() -> None:
    altered = dataclasses.replace(INDEX.shards[1], sha256="2" * 64)
    assert dataclasses.replace(INDEX, shards=(INDEX.shards[0], altered)).digest != INDEX.digest


def test_the_digest_does_not_feel_the_order_of_fields() -> None:
    fields = json.loads(INDEX.to_bytes())
    shuffled = json.dumps(dict(reversed(fields.items()))).encode()
    assert parse_index(shuffled, "here").digest == INDEX.digest


def _changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = json.loads(INDEX.to_bytes())
    change(fields)
    return json.dumps(fields).encode()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Index) if field.name != "recipe"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(UserError, match=f"s3://bucket/index.json .*{field}.*; pack"):
        parse_index(_changed(lambda fields: fields.pop(field)), "s3://bucket/index.json")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Shard)])
def test_a_missing_field_of_a_shard_is_named(field: str) -> None:
    with pytest.raises(UserError, match=f"lacks or misnames a field.*{field}"):
        parse_index(_changed(lambda fields: fields["shards"][1].pop(field)), "here")


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(UserError, match=r"lacks or misnames a field.*licence"):
        parse_index(_changed(lambda fields: fields.update(licence="CC0")), "here")


def test_another_schema_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=f"has schema {SCHEMA + 1}, this version reads schema {SCHEMA}; pack"):
        parse_index(_changed(lambda fields: fields.update(schema=SCHEMA + 1, shape="unknown")), "here")


def test_wrong_totals_are_refused() -> None:
    with pytest.raises(UserError, match="says 8 samples but its shards hold 7"):
        parse_index(_changed(lambda fields: fields.update(samples=8)), "here")


@pytest.mark.parametrize("data", [b"", b"not json", b"[1, 2]", b"{}", b"\xff\xfe", INDEX.to_bytes()[:-20]])
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(UserError, match="here is not an index of shards"):
        parse_index(data, "here")


def test_a_folder_without_an_index_tells_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)no shards at .*nowhere .*Make them:\n  pack it"):
        load_index(str(tmp_path / "nowhere"), how_to_make="pack it")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no shards at"):
        load_index(str(tmp_path / "file"))


def test_an_unreadable_index_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "index.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*index\.json"):
        load_index(str(tmp_path))
