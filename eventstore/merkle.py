"""The Merkle tree of RFC 9162 over the checksums of a log: roots, short proofs, and what they prove. Pure.

The chain proves an event by all that came before it. The tree proves it by a hash a level: twenty for a million events. Its leaf
n is the checksum c_n, so it is computed when asked and stored nowhere (FORMAT.md section 10).

A root does not say how many leaves it stands for: a proof is worth something only with a size that is as well known as the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

Range = tuple[int, int]
"""The leaves with first <= index < end."""

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(checksum: bytes) -> bytes:
    """The hash of a leaf; its prefix keeps a leaf from passing for a node."""
    return sha256(_LEAF + checksum).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return sha256(_NODE + left + right).digest()


class Tree:
    """The tree over a stream of checksums, in memory that grows with the logarithm of their number.

    `keep` names ranges that hashes() will be asked for. It starts empty, or by from_outline() behind leaves that nobody has any more.
    """

    def __init__(self, keep: Iterable[Range] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        """The perfect subtrees that the leaves so far make up, the largest first: one for each bit of `size` that is set."""
        self._spine: list[bytes] = []
        """The subtrees 1 to 2, 2 to 4, 4 to 8 ... within the first peak: with leaf 0 they make it up."""
        self._wanted = {part for each in keep for part in _perfect(each)}
        self._kept: dict[Range, bytes] = {}

    @classmethod
    def from_outline(cls, first: bytes, outline: Sequence[bytes], size: int, keep: Iterable[Range] = ()) -> Tree:
        """The tree over `size` leaves of which only the first is known, and what outline() gave. Raises ValueError for another number."""
        ranges = outline_ranges(size)
        if len(outline) != len(ranges):
            raise ValueError(f"{len(outline)} hashes; a tree of {size} leaves has {len(ranges)} in its outline")
        tree, height = cls(keep), size.bit_length() - 1
        node = leaf_hash(first)
        tree._keep(node, 0, 1)
        for known, (at, end) in zip(outline, ranges, strict=True):
            tree._keep(known, at, end)
            if at == end - at:  # the sibling of all that came before it
                node = node_hash(node, known)
                tree._keep(node, 0, end)
        tree._spine, tree._peaks, tree.size = list(outline[:height]), [node, *outline[height:]], size
        return tree

    def outline(self) -> list[bytes]:
        """The hashes of outline_ranges(size): beside leaf 0 all that it takes to go on from here, and to prove leaf 0."""
        return [*self._spine, *self._peaks[1:]]

    def extend(self, checksums: Iterable[bytes]) -> None:
        """Add leaves at the end."""
        peaks, spine, wanted, size = self._peaks, self._spine, self._wanted, self.size
        for checksum in checksums:
            node = sha256(_LEAF + checksum).digest()
            if wanted:
                self._keep(node, size, size + 1)
            left, height = size, 1
            while left & 1:  # a subtree as large stands before it
                if left == 1:
                    spine.append(node)
                node = sha256(_NODE + peaks.pop() + node).digest()
                left >>= 1
                if wanted:
                    self._keep(node, left << height, size + 1)
                height += 1
            peaks.append(node)
            size += 1
        self.size = size

    def _keep(self, node: bytes, first: int, end: int) -> None:
        if (first, end) in self._wanted:
            self._kept[first, end] = node

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self._peaks:
            return sha256(b"").digest()
        *before, root = self._peaks
        for peak in reversed(before):
            root = node_hash(peak, root)
        return root

    def hashes(self, ranges: Iterable[Range]) -> list[bytes]:
        """The hash of each range, as if it were a tree; all were among `keep`, and end within the leaves added.

        Raises LookupError for one whose leaves came before those added, and that the outline does not know.
        """
        return [self._hash(first, end) for first, end in ranges]

    def _hash(self, first: int, end: int) -> bytes:
        found = self._kept.get((first, end))
        if found is not None:
            return found
        if end - first == 1:
            raise LookupError(f"leaf {first} is not known")
        middle = first + _split(end - first)
        return node_hash(self._hash(first, middle), self._hash(middle, end))


def outline_ranges(size: int) -> list[Range]:
    """The fewest perfect subtrees that all leaves but the first make up, in order: 1 to 2, 2 to 4, 4 to 8 ..., then ever smaller."""
    ranges, at = list[Range](), 1
    while at < size:
        end = at + min(at & -at, 1 << (size - at).bit_length() - 1)
        ranges.append((at, end))
        at = end
    return ranges


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Whose hashes prove leaf `index` in a tree of `size` leaves, from the leaf up (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of a tree of {size}")
    siblings = []
    first, end = 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((first, middle))
            first = middle
    return siblings[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Whose hashes prove that a tree of `new` leaves begins with the one of `old` leaves (RFC 9162 section 2.1.4.1)."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {old} leaves within one of {new}")
    parts = []
    first, end = 0, new
    while old < end:
        middle = first + _split(end - first)
        if old <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((first, middle))
            first = middle
    if first > 0:  # else what is left is the old tree itself, whose root is known
        parts.append((first, end))
    return parts[::-1]


def proves_inclusion(checksum: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves `checksum` to be leaf `index` of the tree of `size` leaves with this root (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, node = index, size - 1, leaf_hash(checksum)
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while not at & 1 and at:  # the right edge: levels without a sibling
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and node == root


def proves_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether `path` proves the tree of `new` leaves to begin with the one of `old` leaves (RFC 9162 section 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    hashes = iter(path)
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # An old tree that is perfect is a subtree of the new one: its root needs no proof, and begins it.
    start = next(hashes, None) if at else old_root
    if start is None:
        return False
    old_node = new_node = start
    for sibling in hashes:
        if last == 0:
            return False
        if at & 1 or at == last:
            old_node, new_node = node_hash(sibling, old_node), node_hash(sibling, new_node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new_node = node_hash(new_node, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and old_node == old_root and new_node == new_root


def _split(size: int) -> int:
    """The largest power of two below `size`, which is at least 2: how many leaves stand in the left subtree."""
    return 1 << (size - 1).bit_length() - 1


def _perfect(of: Range) -> Iterator[Range]:
    """The perfect subtrees that a range is made of, each of which is complete as soon as its last leaf is added."""
    first, end = of
    while end - first > 1:
        middle = first + _split(end - first)
        if middle - first == end - middle:
            break
        yield first, middle
        first = middle
    yield first, end
