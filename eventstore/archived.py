"""What an `archive` event says: where a sealed file of a log was put, or that it was deleted (FORMAT.md section 8). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from eventstore.errors import FormatError
from eventstore.merkle import outline_ranges
from eventstore.model import Event


class Archived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sealed file that is not in the log's folder any more. Of several events with one `first`, the last one counts."""

    first: int
    """The position that the file begins with and is named by."""
    last: int
    """Where the seal stands that ends it."""
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None
    """Of the whole file as it stands in the archive, in hexadecimal; None of one that was deleted."""
    to: str | None
    """The folder that open(archives=[...]) takes; None if the file was deleted."""
    tree: list[Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]] | None
    """What the tree over the log goes on from without this file and those before it: Tree.outline() over the leaves up to `last`.

    None where they were not all at hand.
    """

    @property
    def events(self) -> int:
        """How many events were appended to the file, the seal included."""
        return self.last - self.first + 1

    def path(self, store_id: str, domain: str) -> Path | None:
        """Where the file stands; None if it was deleted."""
        return None if self.to is None else archived_file(Path(self.to), store_id, domain, self.first)


def archived_file(folder: Path, store_id: str, domain: str, first: int) -> Path:
    """The path of a sealed file in an archive: under the name that it had."""
    return folder / store_id / domain / f"{first:020d}.db"


def read_archived(event: Event, domain: str) -> Archived:
    """What an archive event says. Raises FormatError for one that says nothing that can be true."""
    try:
        said = msgspec.json.decode(event.data if isinstance(event.data, str) else "", type=Archived)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise FormatError(domain, event.position, f"the archive event says nothing readable: {error}") from error
    if not 0 <= said.first <= said.last < event.position or (said.sha256 is None) != (said.to is None):
        raise FormatError(domain, event.position, f"the archive event speaks of positions {said.first} to {said.last}, which cannot be")
    if said.tree is not None and len(said.tree) != (wanted := len(outline_ranges(said.last + 1))):
        found = f"the archive event names {len(said.tree)} hashes of the tree up to position {said.last}; it has {wanted}"
        raise FormatError(domain, event.position, found)
    return said


def latest(archived: Iterable[Archived]) -> dict[int, Archived]:
    """The word that counts about each file, by where it begins."""
    return {each.first: each for each in archived}
