"""What the import and the export of contracts share: which keys are records, and the candles of a domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from eventstore.adapters.contracts import CONTRACTS, Contract, key_of
from eventstore.adapters.json_layout import Layout, of_paths
from eventstore.adapters.shelf import Parts
from eventstore.codec import encode_key
from eventstore.domain import DomainStore
from eventstore.errors import ContractError, RedactedError
from eventstore.model import Event, Key
from eventstore.projections.series import Candles
from eventstore.store import Store

BY_DOMAIN: dict[str, Contract] = {contract.domain.name: contract for contract in CONTRACTS.values()}
"""The contracts by the domains that keep them."""

_ANYWHERE = Path()


def parts_of(key: Key) -> Parts:
    """A key as a contract has it."""
    return (key,) if isinstance(key, str) else key


def is_record(contract: Contract, parts: Parts) -> bool:
    """Whether a key can be one of a contract's records."""
    names = _names(contract)
    if len(parts) != len(names):
        return False
    numbers = contract.shape == "series"
    return all(isinstance(part, int) == (numbers and name == contract.id) for name, part in zip(names, parts, strict=True))


def require_records(store: Store) -> None:
    """Refuse a store in which a tree's paths are keys, as an import without contracts makes them. Raises ContractError."""
    for name in store.domains():
        contract = BY_DOMAIN.get(name)
        for key in store.domain(name).keys() if contract is not None else ():
            if contract is not None and is_path(contract, parts_of(key)):
                raise of_paths(name, store.location, encode_key(key))


def require_paths(store: Store, files: Mapping[str, Collection[Parts]]) -> bool:
    """Refuse to give a tree's files, by domain, the keys that their paths are, where contracts keep records: these would be there
    twice, and the store be none for contracts any more. Whether it was asked: not if no contract has such files. Raises ContractError.
    """
    found = ((name, key) for name, keys in files.items() if name in BY_DOMAIN for key in keys if is_path(BY_DOMAIN[name], key))
    path = next(found, None)
    if path is None:
        return False
    for name in store.domains():
        contract = BY_DOMAIN.get(name)
        if contract is None or _are_alike(contract):
            continue
        for key in map(parts_of, store.domain(name).keys()):
            if is_record(contract, key) and not is_path(contract, key) and key not in files.get(name, ()):
                raise ContractError(
                    f"{store.location} keeps records of contracts, such as {name} {encode_key(key_of(key))}, and not files by their paths,"
                    f" such as {path[0]} {encode_key(path[1])}; import the tree with --contracts, or into another store"
                )
    return True


def is_path(contract: Contract, parts: Parts) -> bool:
    """Whether a key is a file's path, and not what the contract calls the record that is there."""
    return Layout(_ANYWHERE, contract).is_path(parts)


def _are_alike(contract: Contract) -> bool:
    """Whether the records of a contract have the keys that their files' paths are."""
    below = contract.path[2:] if contract.path[0] == "data" else contract.path[1:]
    return below == tuple((name,) for name in _names(contract))


def _names(contract: Contract) -> tuple[str, ...]:
    """What the parts of a key are called."""
    return (*contract.context, *filter(None, [contract.id]))


def fold_candles(domain: DomainStore, candles: Candles, until: int) -> Candles:
    """`candles` with all that the domain says up to a position. Raises CorruptionError."""
    anew = not candles.position
    for event in domain.events(domain.floor if anew else candles.position, until, carried=anew):
        candles.apply(event, text_or_none(domain, event))
    return candles


def text_or_none(domain: DomainStore, event: Event) -> str | None:
    """The text of an event's value; None if it was erased, or there is none."""
    try:
        return domain.text_of(event)
    except RedactedError:
        return None
