"""The layout of the framework's JSON files: from a key to a path and back, and which keys no path can tell apart. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eventstore.adapters.contracts import OPTIONAL, Contract
from eventstore.adapters.shelf import Parts
from eventstore.codec import encode_key
from eventstore.errors import ContractError
from eventstore.model import Part
from eventstore.projections.key_states import natural_order

SUFFIX = ".json"
TEMPORARY = ".tmp-"
"""How the half of an atomic write is called, here and by the framework."""
CLAIM = ".context"
"""The file that says whose a folder is, where the folder's name does not."""
QUARANTINE = ".quarantine"
"""The folder, below the root, where documents are put that are no JSON."""
LONGEST_NAME = 255 - 48
"""Bytes of a document's or a folder's name: a temporary file's is longer by what stands in front of it."""

_NUMBER = re.compile(r"-?[0-9]{1,20}")

ADVICE = "the event store keeps such keys apart"
"""What an error says in the end."""


class Layout:
    """Where the records of one contract are below `root`. Raises ContractError for a key that no path can say."""

    def __init__(self, root: Path, contract: Contract) -> None:
        self._root, self._contract = root, contract
        self._segments = [segment for segment in contract.path[:-1] if isinstance(segment, tuple) and len(segment) > 1]

    def folder(self, context: Parts) -> Path:
        """The folder of a context's records."""
        return self._root.joinpath(*(self._name(context, name) for name in self._joined(context, self._contract.path[:-1])))

    def path(self, key: Parts) -> Path:
        """The file of a record."""
        *folders, name = self._joined(key, self._contract.path)
        if name.startswith(TEMPORARY):
            raise ContractError(f"{self.where(key)}: a file whose name starts with {TEMPORARY!r} is the half of a write; {ADVICE}")
        return self._root.joinpath(*(self._name(key, each) for each in (*folders, name + SUFFIX)))

    def _joined(self, key: Parts, path: Sequence[str | tuple[str, ...]]) -> list[str]:
        values = dict(zip((*self._contract.context, self._contract.id), key, strict=False))
        told = [[segment] if isinstance(segment, str) else _told(values, segment) for segment in path]
        return ["_".join(parts) for parts in told if parts]

    def _name(self, key: Parts, name: str) -> str:
        if not _is_text(name):
            raise ContractError(f"{self.where(key)}: {name!r} holds a lone surrogate, which no file's name can; {ADVICE}")
        if "/" in name or "\0" in name or name in ("", ".", "..", QUARANTINE):
            raise ContractError(f"{self.where(key)}: {name!r} is no name for a file or a folder; {ADVICE}")
        if len(name.encode()) > LONGEST_NAME:
            raise ContractError(f"{self.where(key)}: no file's or folder's name here takes more than {LONGEST_NAME} bytes; {ADVICE}")
        return name

    def keys(self, parts: Sequence[str]) -> list[Parts]:
        """The keys whose document may be there: folders below the root, then the file's name without its suffix.

        None if no record of this contract is; several where parts that are joined by `_` hold one. What the engine never does (is_odd) is
        last: to leave an optional part out, or not.
        """
        names = (*self._contract.context, *filter(None, [self._contract.id]))
        return self._read(self._contract.path, parts, names)

    def contexts(self, parts: Sequence[str]) -> list[Parts]:
        """The contexts whose folder would be there, so named: of a document, for one that holds a whole list of records."""
        return self._read(self._contract.path[:-1], parts, self._contract.context)

    def _read(self, path: Sequence[str | tuple[str, ...]], parts: Sequence[str], names: tuple[str, ...]) -> list[Parts]:
        told = [values for spelling in _spellings(path) if len(spelling) == len(parts) for values in _values(spelling, parts)]
        keys = {tuple(_part(self._contract, name, values.get(name, "")) for name in names) for values in told}
        return sorted(
            (key for key in keys if self._joined(key, path) == list(parts)),
            key=lambda key: (self.is_odd(key[: len(self._contract.context)]), list(map(str, key))),
        )

    def is_path(self, key: Parts) -> bool:
        """Whether a key is a file's path below the contract's folder, and not what the contract calls the record that is there."""
        if not all(isinstance(part, str) for part in key):
            return False
        folders = itertools.takewhile(lambda segment: isinstance(segment, str), self._contract.path[:2])
        there = self.keys((*map(str, folders), *map(str, key)))
        return bool(there) and key not in there

    def where(self, key: Parts) -> str:
        """A key as an error names it."""
        return f"{self._contract.name} {list(key)!r}"

    def _named_together(self, context: Parts) -> list[dict[str, str]]:
        """The parts that are joined to a folder's name, where there are several."""
        values = dict(zip(self._contract.context, map(str, context), strict=True))
        return [{name: values[name] for name in segment} for segment in self._segments]

    @property
    def is_joined(self) -> bool:
        """Whether any folder's name is joined of several parts."""
        return bool(self._segments)

    def is_ambiguous(self, context: Parts) -> bool:
        """Whether other parts make the same name as well; `backtest` is one of two words, and stands last."""
        return any("_" in value for parts in self._named_together(context) for name, value in parts.items() if name != "backtest")

    def is_odd(self, context: Parts) -> bool:
        """Whether an optional part is left out or not as the engine never does: with it a name has a part more, which `_` can feign."""
        joined = [parts for parts in self._named_together(context) if OPTIONAL in parts]
        return any((parts[OPTIONAL] == "") == (parts["backtest"] == "backtest") for parts in joined)


def of_paths(domain: str, location: str, key: str) -> ContractError:
    """What is wrong with a domain in which a tree's paths are keys."""
    return ContractError(
        f"{domain} in {location} has keys that are paths of files, such as {key}, as `eventstore import` makes them without --contracts;"
        " contracts need a store of their own: import the tree with --contracts into another one"
    )


def ids(names: Sequence[str]) -> list[str]:
    """The ids that the names of a folder's files stand for, in natural order; one that is no text is no id of ours."""
    documents = [name for name in names if _is_text(name) and name.endswith(SUFFIX) and not name.startswith(TEMPORARY)]
    return sorted((name.removesuffix(SUFFIX) for name in documents), key=_natural)


def _part(contract: Contract, name: str, text: str) -> Part:
    """A part of a key as a path says it; what it cannot have been is not what the path of the key says then."""
    if name == "backtest":
        return text if text in ("backtest", "live") else ""
    if contract.shape == "series" and name == contract.id:
        return int(text) if _NUMBER.fullmatch(text) else ""
    return text


def _spellings(path: Sequence[str | tuple[str, ...]]) -> list[list[str | tuple[str, ...]]]:
    """A path with its optional part, and without it."""
    without = [tuple(name for name in segment if name != OPTIONAL) if isinstance(segment, tuple) else segment for segment in path]
    return [list(path), [segment for segment in without if segment]]


def _values(segments: Sequence[str | tuple[str, ...]], parts: Sequence[str]) -> list[dict[str, str]]:
    """What the parts of a key may be, so that these are the names; a part that stands in two of them is the same in both."""
    found: list[dict[str, str]] = [{}]
    for segment, text in zip(segments, parts, strict=True):
        if isinstance(segment, str):
            found = found if segment == text else []
        else:
            told = list(_splits(segment, text))
            found = [
                {**known, **each} for known in found for each in told if all(known.get(name, part) == part for name, part in each.items())
            ]
    return found


def _splits(names: tuple[str, ...], text: str) -> Iterator[dict[str, str]]:
    """Every way to read a name as parts that were joined by `_`."""
    words = text.split("_")
    for cuts in itertools.combinations(range(1, len(words)), len(names) - 1):
        told = ["_".join(words[first:last]) for first, last in itertools.pairwise((0, *cuts, len(words)))]
        yield dict(zip(names, told, strict=True))


def _told(values: dict[str, Any], segment: tuple[str, ...]) -> list[str]:
    """The parts that a folder's or a file's name is joined of; an optional one that is empty is none of them."""
    return [str(values[name]) for name in segment if (name, values[name]) != (OPTIONAL, "")]


def _is_text(text: str) -> bool:
    """Whether a file's name can hold it: no half of an emoji."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _natural(id_: str) -> list[Any]:
    return natural_order(encode_key((id_, "")))
