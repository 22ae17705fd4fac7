"""The bytes of an object as they arrive, from any offset on, on any fsspec URL.

Nothing is retried here and nothing is hidden: whoever reads knows how far it came and asks for the rest. For s3://
the body is streamed by botocore's blocking client, at a third of the CPU time of s3fs, and without an event loop's
thread that would not survive a fork; for http:// and https:// by the standard library's. Other stores are asked for
one block after the other.
"""

from __future__ import annotations

import os
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from stackgan_dist.storage.connect import S3_TIMEOUTS
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import WrongSizeError
from stackgan_dist.storage.store import StoreFiles

_PIECE_BYTES = 2**18
_BLOCK_BYTES = 8 * 2**20
_HTTP_TIMEOUT_S = 15
"""Without a connection, or without a byte."""
_UNQUOTED = "%:/?#[]@!$&'()*+,;=~"
"""What a URL holds as it is given."""


class ObjectStream:
    """Reads objects; one for all threads of a process, and made anew in the child of a fork."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        self._forget()

    def read(self, folder: Folder, name: str, begin: int, size: int) -> Iterator[bytes]:
        """Bytes [begin, size) of `name` in `folder` on a store, an object of `size` bytes, in pieces; may end early.

        Raises FileNotFoundError, PermissionError, WrongSizeError, or any error of the store's client.
        """
        files = folder.files
        assert isinstance(files, StoreFiles)
        fs, path = files.fs, files.location(files.below(folder.key, name))
        if "s3" in files.protocols:
            yield from self._read_s3(fs, path, begin, size)
            return
        if "https" in files.protocols:
            yield from read_http(path, begin, size, _PIECE_BYTES, fs.kwargs.get("headers") or {})
            return
        while begin < size:
            block = fs.cat_file(path, start=begin, end=min(begin + _BLOCK_BYTES, size))
            if not block:
                return
            yield block
            begin += len(block)

    def _read_s3(self, fs: Any, path: str, begin: int, size: int) -> Iterator[bytes]:
        from botocore.exceptions import ClientError

        bucket, key, _ = fs.split_path(path)
        try:
            answer = self._s3(fs).get_object(Bucket=bucket, Key=key, Range=f"bytes={begin}-{size - 1}")
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in ("NoSuchKey", "NoSuchBucket", "404"):
                raise FileNotFoundError(f"{code} for {path}") from error
            if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
                raise PermissionError(f"{code}: {error}") from error
            raise
        total = str(answer.get("ContentRange", "")).rpartition("/")[2]
        if total.isdigit() and int(total) != size:
            raise WrongSizeError(int(total))
        with answer["Body"] as body:
            while piece := body.read(_PIECE_BYTES):
                yield piece

    def _s3(self, fs: Any) -> Any:
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            if self._client is None:
                import boto3
                from botocore import UNSIGNED
                from botocore.config import Config

                # Whatever s3fs was told, by its own configuration file for instance, holds here too.
                config = Config(
                    **S3_TIMEOUTS,
                    retries={"total_max_attempts": 1},
                    signature_version=UNSIGNED if fs.anon else None,
                )
                options = {"endpoint_url": fs.endpoint_url, **fs.client_kwargs}
                self._client = boto3.session.Session().client(
                    "s3",
                    aws_access_key_id=fs.key,
                    aws_secret_access_key=fs.secret,
                    aws_session_token=fs.token,
                    config=config,
                    **options,
                )
            return self._client


def read_http(url: str, begin: int, size: int, piece_bytes: int, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Bytes [begin, size) of `url`, an object of `size` bytes, in pieces; may end early.

    Servers that know no ranges are served too: what comes before `begin` is read and dropped.

    Raises FileNotFoundError (404, 410), PermissionError (401, 403), WrongSizeError, or another OSError.
    """
    # No compression on the way: offsets are those of the object.
    asked = {"Accept-Encoding": "identity", **headers, "Range": f"bytes={begin}-{size - 1}"}
    request = urllib.request.Request(quote(url, safe=_UNQUOTED), headers=asked)
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S)
    except HTTPError as error:
        with error:
            fault = f"{error.code} {error.reason} for {url}"
            if error.code in (404, 410):
                raise FileNotFoundError(fault) from error
            if error.code in (401, 403):
                raise PermissionError(fault) from error
            if error.code == 416:  # the range lies past its end, whose place the server tells
                total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
                if total.isdigit() and int(total) != size:
                    raise WrongSizeError(int(total)) from error
            raise OSError(fault) from error
    with answer:
        partial = answer.status == 206
        total = (answer.headers.get("Content-Range") or "").rpartition("/")[2] if partial else ""
        if total.isdigit() and int(total) != size:
            raise WrongSizeError(int(total))
        skip = 0 if partial else begin
        if not partial and answer.length is not None and answer.length > size:
            raise WrongSizeError(answer.length)
        while skip and (dropped := answer.read(min(piece_bytes, skip))):
            skip -= len(dropped)
        while piece := answer.read(piece_bytes):
            yield piece
