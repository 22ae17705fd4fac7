"""The body of an http:// or https:// object as it arrives, by the standard library's blocking client.

Like the other streams it retries nothing. Servers that know no ranges are served too: what comes before the asked
offset is read and dropped.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from urllib.error import HTTPError
from urllib.parse import quote

from stackgan_dist.data.patience import WrongSizeError

_TIMEOUT_S = 15
"""Without a connection, or without a byte."""
_AS_THEY_ARE = "%:/?#[]@!$&'()*+,;=~"


def read_http(url: str, begin: int, size: int, piece_bytes: int, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Bytes [begin, size) of `url`, an object of `size` bytes, in pieces; may end early.

    Raises FileNotFoundError (404, 410), PermissionError (401, 403), WrongSizeError, or another OSError.
    """
    # No compression on the way: offsets are those of the object.
    asked = {"Accept-Encoding": "identity", **headers, "Range": f"bytes={begin}-{size - 1}"}
    request = urllib.request.Request(quote(url, safe=_AS_THEY_ARE), headers=asked)
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
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
