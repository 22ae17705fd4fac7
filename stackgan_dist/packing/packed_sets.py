"""Finding the packed data sets below a folder: one for each split and size."""

from __future__ import annotations

from stackgan_dist.data.index import INDEX_NAME
from stackgan_dist.data.storage import open_filesystem
from stackgan_dist.errors import UserError


def packed_folders(url: str) -> dict[str, str]:
    """Path below `url` ("" for itself) -> URL of every folder with an index. Raises UserError when there is none."""
    fs, top = open_filesystem(url)
    top = top.rstrip("/")
    found = {}
    for depth in ("", "/*", "/*/*"):
        for path in fs.glob(f"{top}{depth}/{INDEX_NAME}"):
            below = path.removesuffix(f"/{INDEX_NAME}")[len(top) :].strip("/")
            found[below] = f"{url.rstrip('/')}/{below}".rstrip("/")
    if not found:
        raise UserError(
            f"there is no {INDEX_NAME} at or below {url}; a set that is not finished has none: pack it first"
        )
    return dict(sorted(found.items()))
