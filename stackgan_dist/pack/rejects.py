"""Pictures that cannot be used: how many may be, and where they are listed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.pack.balance import REJECTED_NAME
from stackgan_dist.pack.listing import Listing
from stackgan_dist.pack.sources.account import printable
from stackgan_dist.storage.folder import Folder


def check_rejected(rejected: Sequence[dict[str, str]], listing: Listing, max_rejects: float, top: Folder) -> None:
    """Raises UserError where more than the share `max_rejects` of a split's pictures are rejected, or all are."""
    if len(rejected) > max_rejects * (len(listing.records) + len(listing.rejected)) or not listing.records:
        raise UserError(_too_many(rejected, listing, max_rejects, top))


def write_rejected(top: Folder, rejected: Sequence[dict[str, str]]) -> None:
    """List them in the split's folder, or remove the list where there are none."""
    if rejected:
        lines = sorted(json.dumps(entry) for entry in rejected)
        top.write(REJECTED_NAME, ("\n".join(lines) + "\n").encode())
    else:
        top.remove(REJECTED_NAME)


def _too_many(rejected: Sequence[dict[str, str]], listing: Listing, max_rejects: float, top: Folder) -> str:
    if not rejected:
        return f"there are no pictures for {top}; check --root, and --limit or --splits"
    examples = "".join(
        f"\n  {printable(entry['id'] or entry['key'])}: {printable(entry['reason'])}" for entry in rejected[:5]
    )
    return (
        f"{len(rejected)} of {len(listing.records) + len(listing.rejected)} pictures cannot be used so far, more than "
        f"--max-rejects {max_rejects:g} allows; no index was written. All of them: {top.url_of(REJECTED_NAME)}. "
        f"The first:{examples}\nMend or remove them, or raise --max-rejects"
    )
