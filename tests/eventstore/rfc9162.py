"""RFC 9162 sections 2.1.1, 2.1.3.1 and 2.1.4.1 define a tree recursively, over all of its leaves: so does this."""

from __future__ import annotations

from functools import cache
from hashlib import sha256


def split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@cache
def root(leaves: tuple[bytes, ...]) -> bytes:
    """MTH(D_n)."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()


def inclusion(index: int, leaves: tuple[bytes, ...]) -> list[bytes]:
    """PATH(m, D_n)."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*inclusion(index, leaves[:k]), root(leaves[k:])]
    return [*inclusion(index - k, leaves[k:]), root(leaves[:k])]


def consistency(old: int, leaves: tuple[bytes, ...], whole: bool = True) -> list[bytes]:
    """PROOF(m, D_n), which is SUBPROOF(m, D_n, true)."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*consistency(old, leaves[:k], whole), root(leaves[k:])]
    return [*consistency(old - k, leaves[k:], False), root(leaves[:k])]
