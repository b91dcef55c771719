"""The tree is RFC 9162's, its proofs prove, and nothing else does; the verifier that strangers run agrees in every case."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import merkle
from eventstore.merkle import Tree, consistency_ranges, inclusion_ranges, outline_ranges
from eventstore.tools import verify_bundle
from tests.eventstore import rfc9162

LEAVES = tuple(sha256(str(n).encode()).digest() for n in range(301))
SIZES = st.integers(1, 300)

Included = Callable[[bytes, int, int, list[bytes], bytes], bool]
Consistent = Callable[[int, int, list[bytes], bytes, bytes], bool]


def included(checksum: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """What the library and the verifier say; they are written apart, and must agree."""
    answers = {
        merkle.proves_inclusion(checksum, index, size, path, root),
        verify_bundle.leads_to(root, checksum, index, size, path),
    }
    assert len(answers) == 1
    return answers.pop()


def consistent(old: int, new: int, path: list[bytes], old_root: bytes, new_root: bytes) -> bool:
    """The same of two trees; of one and the same tree the verifier asks for no proof."""
    answer = merkle.proves_consistency(old, new, path, old_root, new_root)
    assert old == new or answer == verify_bundle.extends(old_root, old, new_root, new, path)
    return answer


def test_the_tree_of_any_size_has_the_root_that_the_rfc_defines() -> None:
    tree = Tree()
    assert tree.root() == rfc9162.root(())
    for size in range(1, 301):
        tree.extend(LEAVES[size - 1 : size])
        assert (tree.size, tree.root()) == (size, rfc9162.root(LEAVES[:size]))


@given(SIZES)
def test_every_leaf_is_proven_by_the_path_that_the_rfc_defines(size: int) -> None:
    tree = Tree(keep=(each for index in range(size) for each in inclusion_ranges(index, size)))
    tree.extend(LEAVES[:size])
    root = tree.root()
    for index in range(size):
        path = tree.hashes(inclusion_ranges(index, size))
        assert path == rfc9162.inclusion(index, LEAVES[:size])
        assert included(LEAVES[index], index, size, path, root)


@given(SIZES)
def test_every_older_tree_is_proven_by_the_path_that_the_rfc_defines(size: int) -> None:
    olds = range(1, size + 1)
    tree = Tree(keep=[each for old in olds for each in (*consistency_ranges(old, size), (0, old))])
    tree.extend(LEAVES[:size])
    root = tree.root()
    for old in olds:
        path = tree.hashes(consistency_ranges(old, size))
        (old_root,) = tree.hashes([(0, old)])
        assert path == rfc9162.consistency(old, LEAVES[:size])
        assert old_root == rfc9162.root(LEAVES[:old])
        assert consistent(old, size, path, old_root, root)


# ---- without the leaves before


@given(SIZES)
def test_an_outline_is_what_the_leaves_but_the_first_make_up(size: int) -> None:
    tree = Tree()
    tree.extend(LEAVES[:size])
    ranges = outline_ranges(size)
    assert [n for first, end in ranges for n in range(first, end)] == list(range(1, size))
    assert all((end - first).bit_count() == 1 and first % (end - first) == 0 for first, end in ranges)
    assert tree.outline() == [rfc9162.root(LEAVES[first:end]) for first, end in ranges]


@given(st.data())
def test_a_tree_goes_on_from_its_outline_and_proves_the_first_leaf_all_later_ones_and_all_later_trees(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    known = data.draw(st.integers(1, size))
    indexes, olds = [0, *range(known, size)], range(known, size + 1)
    keep = [each for index in indexes for each in inclusion_ranges(index, size)]
    keep += [each for old in olds for each in (*consistency_ranges(old, size), (0, old))]
    before = Tree()
    before.extend(LEAVES[:known])
    tree = Tree.from_outline(LEAVES[0], before.outline(), known, keep)
    assert tree.root() == rfc9162.root(LEAVES[:known])
    tree.extend(LEAVES[known:size])
    assert (tree.size, tree.root()) == (size, rfc9162.root(LEAVES[:size]))
    assert tree.outline() == [rfc9162.root(LEAVES[first:end]) for first, end in outline_ranges(size)]
    assert all(tree.hashes(inclusion_ranges(index, size)) == rfc9162.inclusion(index, LEAVES[:size]) for index in indexes)
    assert all(tree.hashes(consistency_ranges(old, size)) == rfc9162.consistency(old, LEAVES[:size]) for old in olds)
    assert all(tree.hashes([(0, old)]) == [rfc9162.root(LEAVES[:old])] for old in olds)


def test_what_an_outline_does_not_know_is_not_made_up() -> None:
    before = Tree()
    before.extend(LEAVES[:6])
    tree = Tree.from_outline(LEAVES[0], before.outline(), 6, inclusion_ranges(3, 6))
    with pytest.raises(LookupError, match="leaf 2 is not known"):
        tree.hashes(inclusion_ranges(3, 6))
    with pytest.raises(ValueError, match="2 hashes; a tree of 6 leaves has 3"):
        Tree.from_outline(LEAVES[0], before.outline()[:-1], 6)


# ---- forgeries


def spoiled(path: list[bytes]) -> Iterator[list[bytes]]:
    """The path with one thing wrong: a bit, a hash less, a hash more, two that changed places."""
    for at, node in enumerate(path):
        for bit in range(0, 256, 37):
            yield [*path[:at], bytes(byte ^ (1 << bit % 8 if n == bit // 8 else 0) for n, byte in enumerate(node)), *path[at + 1 :]]
        yield path[:at] + path[at + 1 :]
        yield [*path[:at], path[at], *path[at:]]
        if at:
            yield [*path[: at - 1], node, path[at - 1], *path[at + 1 :]]
    yield [*path, LEAVES[0]]
    yield [LEAVES[0], *path]
    yield [node[:-1] for node in path] or [b""]


@given(SIZES, st.data())
def test_a_forged_inclusion_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(1, 300).filter(lambda other: other != size))
    path, root = rfc9162.inclusion(index, LEAVES[:size]), rfc9162.root(LEAVES[:size])
    assert not any(included(LEAVES[index], index, size, forged, root) for forged in spoiled(path))
    assert not any(included(LEAVES[index], place, size, path, root) for place in (*range(size), -1, size, 2**62) if place != index)
    assert not any(included(leaf, index, size, path, root) for leaf in (*LEAVES[:index], LEAVES[size], b"", LEAVES[index] + b"\x00"))
    # A root does not know its size, so a forger has a choice of sizes; what is kept is both.
    assert not included(LEAVES[index], index, other, path, rfc9162.root(LEAVES[:other]))
    assert not included(LEAVES[index], index, size, path, rfc9162.root(LEAVES[:other]))


@given(SIZES, st.data())
def test_a_forged_consistency_is_refused(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    path, root, old_root = rfc9162.consistency(old, LEAVES[:size]), rfc9162.root(LEAVES[:size]), rfc9162.root(LEAVES[:old])
    altered = (*LEAVES[: old - 1], LEAVES[300], *LEAVES[old:size])
    assert not any(consistent(old, size, forged, old_root, root) for forged in spoiled(path))
    assert not consistent(old, size, path, rfc9162.root(altered[:old]), root)
    assert not consistent(old, size, rfc9162.consistency(old, altered), old_root, rfc9162.root(altered)), "a history sealed anew"
    assert not any(consistent(place, size, path, rfc9162.root(LEAVES[:place]), root) for place in range(1, size + 1) if place != old)
    assert not consistent(0, size, path, rfc9162.root(()), root)
    assert not consistent(size + 1, size, path, old_root, root)


def test_a_node_does_not_pass_for_a_leaf() -> None:
    left, right = rfc9162.root(LEAVES[:2]), rfc9162.root(LEAVES[2:4])
    root = rfc9162.root(LEAVES[:4])
    assert included(LEAVES[0], 0, 4, rfc9162.inclusion(0, LEAVES[:4]), root)
    assert not included(left + right, 0, 1, [], root)
    assert not included(b"\x01" + left + right, 0, 1, [], root)


def test_what_no_tree_has_is_refused() -> None:
    for index, size in ((0, 0), (-1, 3), (3, 3)):
        with pytest.raises(ValueError, match=f"leaf {index} of a tree of {size}"):
            inclusion_ranges(index, size)
    for old, new in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match=f"a tree of {old} leaves within one of {new}"):
            consistency_ranges(old, new)


# ---- known answers, so that a mistake that all of these share is one too

# The leaves and roots that implementations of Certificate Transparency test themselves with.
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    leaves = tuple(map(bytes.fromhex, CT_LEAVES))
    for size, expected in enumerate(CT_ROOTS):
        tree = Tree()
        tree.extend(leaves[:size])
        assert tree.root().hex() == rfc9162.root(leaves[:size]).hex() == expected


# The log in FORMAT.md section 4, by the definition of the RFC; the roots and paths in its section 10.
C = """13b8b3db9dadfefef6d408a2154d22271116035d6ea096b6465229e8931e71b8 8dfda669aac572055d827669cfe297d2d0c22c477ded8dc821b9026e0b74b249
593d7cfe512dde6598f12bbe92a84303dc377a3f557b89bf585d9ca54084a2af c2f3d7cfe24e0d138824df84e5cb421ba5ca7083c583c88f5dee0e7705230961"""
ROOTS = [
    "5686201179e06bafff35ca77b6e458bfbe53f79c3aec9c8b203e4f40962f9f89",
    "ce182ca8532059944644e06ea2f2263b0d23aa660d8f3488f78d5049666d8760",
    "c2c14d1b406bdf041c673ca19cc3a03cd5dc5d4bde4249aefd943d9f5ff47226",
    "ca0cd5b02144b86205246fd0a26ef344f6ab29ac06d7ff809ed0b56cc2238167",
]
SIBLING = "7b4e976a0c943d4d27e866aa7974873942b1d98f6bbdd837da0f81a070789db9"
START = "320b196453c98420ba3d37aecaeeede3eb43f3b732f62fb74c481a05e10ea440"
OUTLINES = [
    "8dbfc74a87e021741212b906d9e958932cd17b9767bda2889a3d455dd7729d14",
    "06022fd87fe7c8a443b25425aecf48b3c985262dcaf367def63357f495906b0f",
]


def test_the_tree_in_format_md_is_ours() -> None:
    text = (Path(__file__).parents[2] / "FORMAT.md").read_text(encoding="utf-8")
    assert [value for value in (*C.split(), *ROOTS, SIBLING, START, *OUTLINES) if value not in text] == []
    leaves = tuple(map(bytes.fromhex, C.split()))
    outlines = [[], OUTLINES[:1], [OUTLINES[0], START], OUTLINES]
    for size, (expected, outline) in enumerate(zip(ROOTS, outlines, strict=True), 1):
        tree = Tree(keep=[*inclusion_ranges(size - 1, size), *consistency_ranges(size, size)])
        tree.extend(leaves[:size])
        assert tree.root().hex() == expected
        assert [each.hex() for each in tree.outline()] == outline
    tree = Tree(keep=[*inclusion_ranges(2, 4), *consistency_ranges(3, 4)])
    tree.extend(leaves)
    assert [each.hex() for each in tree.hashes(inclusion_ranges(2, 4))] == [SIBLING, ROOTS[1]]
    assert [each.hex() for each in tree.hashes(consistency_ranges(3, 4))] == [START, SIBLING, ROOTS[1]]


# ---- memory


def test_a_root_takes_memory_that_does_not_grow_with_the_log() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        tree = Tree(keep=inclusion_ranges(7, count))
        tree.extend(n.to_bytes(32, "big") for n in range(count))
        tree.root()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(8_000) < 2 * peak(500)
