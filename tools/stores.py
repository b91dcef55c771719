"""How commands open what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from eventstore.copies import holder_of
from eventstore.domain import DomainStore
from eventstore.errors import ConfigError, NotFoundError
from eventstore.model import Domain
from eventstore.opening import open_store
from eventstore.store import Store


def existing_store(location: str, *, read_only: bool = False, keys: Path | None = None, archives: Sequence[Path] = ()) -> Store:
    """A store that is there already. Damage is an error, so that nobody takes what is left for all there was; `read_only` reads it."""
    return open_store(location, create=False, read_only=read_only, keys=keys, archives=archives)


def require_outside_stores(path: Path) -> None:
    """Refuse to write a file into the folder of a store or a backup, this one's or another's. Raises ConfigError."""
    folder = holder_of(path)
    if folder is not None:
        raise ConfigError(f"{path} is in the store or backup {folder}, where nothing but its own files may be; name a file elsewhere")


def raw_domain(store: Store, name: str) -> DomainStore:
    """A domain whose values are their JSON text, byte for byte."""
    rule = store.domain(name).domain.write
    return store.domain(Domain(name, rule, msgspec.Raw))


def existing_domain(store: Store, name: str) -> DomainStore:
    """The same, of a domain that is there already: a name mistyped makes no empty log."""
    if Domain(name).name not in store.domains():
        raise NotFoundError(f"no domain {name!r} in {store.location}; `eventstore ls {store.location}` names those there are")
    return raw_domain(store, name)


def chosen_domains(store: Store, name: str | None) -> list[DomainStore]:
    """One domain, or all of them."""
    return [existing_domain(store, name)] if name is not None else [raw_domain(store, each) for each in store.domains()]
