"""The tree over a log (merkle.py): from its first event on, or from where its files are at hand.

What came before those is in the tree all the same: the `archive` event of the last file that is gone says what of the tree its
leaves made up (FORMAT.md section 8). That goes as far as that event is believed; with the archive attached, verify holds it
against the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from eventstore.archived import Archived, latest
from eventstore.errors import ChecksumError, CompactedError, FormatError
from eventstore.log import EventLog, FileLog
from eventstore.merkle import Range, Tree
from eventstore.model import Head

_LEAVES = 10_000
"""Checksums read at a time."""

Progress = Callable[[str, int, int], None]
"""Called with domain, position reached, last position."""


def started(log: EventLog, keep: Iterable[Range] = ()) -> Tree:
    """The tree over what is not at hand, to be grown over what is; empty where everything is.

    Raises CompactedError if no archive event has it.
    """
    floor = log.floor()
    if not floor:
        return Tree(keep)
    said = _recorded(log).get(floor)
    if said is None:
        raise below_floor(log, floor, "no event has the tree up to here, as a file before was missing or damaged when this one went")
    return _from_record(log, said, keep)


def grow(tree: Tree, log: EventLog, head: Head, progress: Progress | None = None) -> Tree:
    """Add all leaves up to a head. Raises GapError, FormatError; ChecksumError if the log has another event there by now."""
    last = b"" if tree.size <= head.position else b"".join(event.checksum for event in log.get([head.position]))
    while tree.size <= head.position:
        end = min(tree.size + _LEAVES, head.position + 1)
        leaves = list(log.checksums(tree.size - 1, end - 1))
        wrong = next((index for index, leaf in enumerate(leaves) if len(leaf) != 32), None)
        if wrong is not None:
            raise FormatError(log.domain, tree.size + wrong, "the checksum is not one of 32 bytes; run `eventstore verify`")
        tree.extend(leaves)
        last = leaves[-1]
        if progress is not None:
            progress(log.domain, end - 1, head.position)
    if last != head.checksum:
        raise ChecksumError(log.domain, head.position, head.checksum, last)
    return tree


def below_floor(log: EventLog, position: int, what: str) -> CompactedError:
    """The error for `what` cannot be had as `position` is not at hand: it names the archive that has it."""
    said = next((each for each in latest(_said(log)).values() if each.first <= position <= each.last), None)
    deleted = said is not None and said.to is None
    return CompactedError(log.domain, position, log.floor(), said.to if said else None, deleted=deleted, what=what)


# ---- what archive events say of it


def outline_of(log: EventLog, first: int, last: int) -> list[str] | None:
    """What the archive event of the file from `first` to `last` says of the tree: its outline, in hexadecimal.

    None if what came before is neither at hand nor in an earlier archive event. Raises CorruptionError.
    """
    before = [said for at, said in _recorded(log).items() if at < first]
    tree = _from_record(log, before[-1]) if before else Tree()
    (seal,) = log.linked([last])
    try:
        grow(tree, log, Head(last, seal.event.checksum))
    except CompactedError:
        return None
    return [node.hex() for node in tree.outline()]


def wrong_outlines(log: EventLog) -> Iterator[tuple[int, str]]:
    """Where an archive event says something else of the tree than the leaves do that are at hand, and a sentence about it.

    Raises CorruptionError where they cannot be read.
    """
    floor = log.floor()
    said = [each for each in _said(log) if each.last > floor and each.tree is not None]
    try:
        tree = started(log) if said else Tree()
    except CompactedError:
        return  # nothing to start from: there is nothing to hold them against
    for last in sorted({each.last for each in said}):
        (seal,) = log.linked([last])
        grow(tree, log, Head(last, seal.event.checksum))
        true = [node.hex() for node in tree.outline()]
        if any(each.tree != true for each in said if each.last == last):
            yield last, "an archive event says of the tree up to here what its leaves do not: a root made without the archive is false"


def _said(log: EventLog) -> list[Archived]:
    return log.archived() if isinstance(log, FileLog) else []


def _recorded(log: EventLog) -> dict[int, Archived]:
    """The files whose archive event has the tree, by where they end, rising."""
    return {said.last: said for _, said in sorted(latest(_said(log)).items()) if said.tree is not None}


def _from_record(log: EventLog, said: Archived, keep: Iterable[Range] = ()) -> Tree:
    births = log.get([0])
    if not births or said.tree is None:
        raise FormatError(log.domain, 0, "the birth row is missing")
    return Tree.from_outline(births[0].checksum, [bytes.fromhex(node) for node in said.tree], said.last + 1, keep)
