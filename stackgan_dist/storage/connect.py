"""Which store a URL means, and fsspec's file system for it."""

from __future__ import annotations

import re
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from stackgan_dist.errors import UserError

S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15}
"""Seconds without a connection, or without a byte, after which a request has failed."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "https": "https"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def split_url(url: str) -> tuple[str, str] | None:
    """The store's root and the key of `url`; None for a path of the local file system.

    Raises UserError for a URL in which file systems are chained by `::`.
    """
    scheme, separator, rest = url.partition("://")
    host, _, key = rest.partition("/")
    if not separator or scheme in ("file", "local"):
        return None
    if not _SCHEME.fullmatch(scheme) and "::" not in scheme:
        return None
    if "::" in scheme or "::" in host:
        raise UserError(f"cannot open {url}: file systems are not chained by '::'; give the URL of the folder itself")
    return f"{scheme}://{host}", key.rstrip("/")


def connected(root: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that serves `root`, and the path of `root` on it.

    Raises UserError when nothing serves its scheme, or the package that does is not installed.
    """
    scheme = root.partition("://")[0]
    # Retries are made here, where they are counted; s3fs keeps those of the parts of a large upload.
    options: dict[str, Any] = (
        {"config_kwargs": {**S3_TIMEOUTS, "retries": {"total_max_attempts": 1}}, "use_listings_cache": False}
        if scheme in ("s3", "s3a")
        else {}
    )
    try:
        fs, top = url_to_fs(root, **options)
    except ImportError as error:
        extra = f" (pip install 'stackgan_dist[{_EXTRAS[scheme]}]')" if scheme in _EXTRAS else ""
        raise UserError(f"{error}{extra}") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    return fs, top.rstrip("/")
