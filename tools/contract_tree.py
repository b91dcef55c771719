"""What the import and the export of contracts share: which keys are records, and the candles of a domain."""

from __future__ import annotations

from pathlib import Path

from eventstore.adapters.contracts import CONTRACTS, Contract
from eventstore.adapters.json_layout import Layout
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
    names = (*contract.context, *filter(None, [contract.id]))
    if len(parts) != len(names):
        return False
    numbers = contract.shape == "series"
    return all(isinstance(part, int) == (numbers and name == contract.id) for name, part in zip(names, parts, strict=True))


def require_records(store: Store) -> None:
    """Refuse a store in which a tree's paths are keys, as an import without contracts makes them. Raises ContractError."""
    for name in store.domains():
        contract = BY_DOMAIN.get(name)
        for key in store.domain(name).keys() if contract is not None else ():
            if contract is not None and _is_path(contract, parts_of(key)):
                raise ContractError(
                    f"{name} in {store.location} has keys that are paths of files, such as {encode_key(key)}, as `eventstore import` makes"
                    " them without --contracts; contracts need a store of their own: import the tree with --contracts into another one"
                )


def _is_path(contract: Contract, parts: Parts) -> bool:
    """Whether a key is a file's path, and not what the contract calls the record that is there."""
    if not all(isinstance(part, str) for part in parts):
        return False
    folders = ("data", contract.domain.name) if contract.path[0] == "data" else (contract.domain.name,)
    there = Layout(_ANYWHERE, contract).keys((*folders, *map(str, parts)))
    return bool(there) and parts not in there


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
