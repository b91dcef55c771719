"""The layout of the framework's JSON files: from a key to a path and back, and which keys no path can tell apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eventstore.adapters.contracts import OPTIONAL, Contract
from eventstore.adapters.shelf import Parts
from eventstore.codec import encode_key
from eventstore.errors import ContractError
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


def ids(names: Sequence[str]) -> list[str]:
    """The ids that the names of a folder's files stand for, in natural order; one that is no text is no id of ours."""
    documents = [name for name in names if _is_text(name) and name.endswith(SUFFIX) and not name.startswith(TEMPORARY)]
    return sorted((name.removesuffix(SUFFIX) for name in documents), key=_natural)


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
