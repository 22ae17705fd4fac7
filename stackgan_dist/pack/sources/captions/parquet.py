"""Captions in a parquet file, such as `metadata.parquet` of Hugging Face's imagefolder; a row for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.captions.entry import Columns, Entry, understood

_ROWS_AT_ONCE = 4096


def columns_of(path: Path, where: str) -> list[str]:
    """The names of the columns of the file at `path`, called `where`. Raises UserError where it cannot be read."""
    with opened(path, where) as file:
        return [str(name) for name in file.schema_arrow.names]


def read_parquet(path: Path, where: str, columns: Columns) -> Iterator[Entry]:
    """The rows of the file at `path`, called `where`, some thousands in memory at a time, and of them what is wanted.

    Raises UserError where it cannot be read, and for a column that holds the pictures themselves.
    """
    with opened(path, where) as file:
        schema = file.schema_arrow
        names = [str(name) for name in schema.names]
        wanted = {*columns.of_file(names), *itertools.chain(*columns.of_captions(names))}
        wanted |= {*columns.of_class(names), *columns.of_split(names)}
        holds = [name for name in columns.of_file(names)[:1] if not _may_be_names(schema.field(name).type)]
        if holds:
            raise UserError(
                f"{where} holds the pictures themselves in its column {holds[0]!r}: pack it with the recipe parquet"
            )
        for number, fields in enumerate(rows_of(file, where, sorted(wanted), _ROWS_AT_ONCE), 1):
            yield understood(fields, f"{where}, row {number}", columns)


def rows_of(file: Any, where: str, columns: Sequence[str], at_once: int) -> Iterator[dict[str, Any]]:
    """The fields of each row of an open file, of which `at_once` rows are in memory at a time.

    Raises UserError where it cannot be read.
    """
    import pyarrow

    number = 0
    try:
        for batch in file.iter_batches(at_once, columns=columns):
            for fields in batch.to_pylist():
                number += 1
                yield fields
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{where}, behind row {number}: {error}; write it again") from error


def _may_be_names(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_null(kind))


def opened(path: Path, where: str) -> Any:
    """The parquet file at `path`, called `where`, for a `with` statement. Raises UserError where it cannot be read."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError(
            f"{where} is a parquet file, which needs a package: python -m pip install 'stackgan_dist[parquet]'"
        ) from error
    try:
        return ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{where} is not a parquet file ({error}); write it again") from error
