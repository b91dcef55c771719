"""Store, the front door: domains over one engine."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from eventstore.clock import Clock
from eventstore.codec import check, read_birth
from eventstore.domain import DomainStore
from eventstore.errors import ClosedError, ConfigError, ContractError, EventStoreError, NotFoundError
from eventstore.failstop import FailStop, OnHalt
from eventstore.group import GroupCommit
from eventstore.live import Live
from eventstore.log import PAGE, Engine, EventLog
from eventstore.model import Domain, Event, Head
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import ValueCache
from eventstore.values import MAX_VALUE_BYTES
from eventstore.verify import Progress, Report, require_whole, verify_store

CACHE_BYTES = 256 * 2**20
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """The front door: domains over one engine. Made by eventstore.open(); a context manager that closes; safe between threads."""

    def __init__(
        self,
        engine: Engine,
        location: str,
        *,
        actor: str | None = None,
        accept_loss: bool = False,
        cache_bytes: int = CACHE_BYTES,
        max_value_bytes: int = MAX_VALUE_BYTES,
        on_halt: OnHalt | None = None,
    ) -> None:
        self.location = location
        self.actor = actor
        self.max_value_bytes = max_value_bytes
        self.clock = Clock()
        self._engine = engine
        self._accept_loss = accept_loss
        self._cache = ValueCache(cache_bytes)
        self._groups: dict[str, GroupCommit] = {}
        self._failstop = FailStop(on_halt)
        self._opening = threading.Lock()
        self._closed = False
        _open_stores.add(self)

    @property
    def store_id(self) -> str:
        """32 hexadecimal digits that no other store has."""
        return self._engine.store_id

    @property
    def created_us(self) -> int:
        """When the store was made, in microseconds."""
        return self._engine.created_us

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._engine.read_only

    def domains(self) -> list[str]:
        """The names of all domains, sorted."""
        self._require_open()
        return self._engine.domains()

    def domain(self, domain: str | Domain) -> DomainStore:
        """Open a domain, made if there is none: by name under whatever rule it has, or by a Domain, whose rule must be its own.

        Raises InvalidKeyError for a name that is none, NotFoundError if it is missing and the store is read-only,
        ContractError for another rule, CorruptionError for damage.
        """
        wanted = Domain(domain) if isinstance(domain, str) else domain
        with self._opening:
            self._require_open()
            group = self._groups.get(wanted.name)
            if group is None:
                self._require_running(wanted.name)
                rule = None if isinstance(domain, str) else wanted.write
                group = self._group(self._engine.open_log(wanted.name, rule, accept_loss=self._accept_loss))
        rule = group.live.log.rule
        if isinstance(domain, str):
            wanted = Domain(wanted.name, rule)
        elif rule != wanted.write:
            raise ContractError(f"{wanted.name}: made with the write rule {rule!r}, opened with {wanted.write!r}")
        return DomainStore(wanted, group, actor=self.actor, max_value_bytes=self.max_value_bytes)

    def _group(self, log: EventLog) -> GroupCommit:
        try:
            pointers = PointerFolder(self._engine.pointers(log.domain), log, writable=not self.read_only)
            live = Live(log, pointers, self._cache, lenient=self.read_only)
        except BaseException:
            log.close()
            raise
        self.clock.observe(live.states.recorded_us)
        group = self._groups[log.domain] = GroupCommit(live, self.clock, self._failstop)
        return group

    def accept(self, domain: str) -> Head | None:
        """Open a domain whose tail is lost by recording the loss as an event; gives its head, None if nothing was lost."""
        with self._opening:
            self._require_open()
            if domain not in self.domains():
                raise NotFoundError(f"no domain {domain!r} in {self.location}")
            if domain in self._groups:
                return None
            self._failstop.require_running()
            return self._group(self._engine.open_log(domain, accept_loss=True)).live.log.accepted

    def adopt(self, domain: str, events: Iterable[Event], *, progress: Callable[[int], None] | None = None) -> Head:
        """Make a domain out of another log's events, unchanged: positions, times and checksums stay. The first is the birth row.

        Every link is checked before it is written; all of them become a domain, or nothing does. Raises ConfigError if
        the domain exists, CorruptionError.
        """
        with self._opening:
            self._require_open()
            self._failstop.require_running()
            stream = iter(events)
            first = next(stream, None)
            birth = read_birth(first, domain)
            assert first is not None  # read_birth() refuses None
            if birth.store_id != self.store_id or birth.domain != domain:
                raise ConfigError(
                    f"{domain}: these are events of {birth.domain!r} of store {birth.store_id}, not of this store ({self.store_id})"
                )
            if domain in self.domains():
                raise ConfigError(f"{domain} exists already; events are adopted into a new domain only")
            with self._engine.adopting(domain, first) as log:
                _append_all(log, stream, progress)
                require_whole(log, self._engine)
            return self._group(self._engine.open_log(domain)).live.states.head

    def verify(self, domain: str | None = None, *, progress: Progress | None = None) -> Report:
        """Check every byte of every domain, or of one, against the chain; repairs nothing. Raises NotFoundError for an unknown domain."""
        names = self.domains()
        if domain is not None and domain not in names:
            raise NotFoundError(f"no domain {domain!r} in {self.location}")
        return Report(self.location, verify_store(self._engine, names if domain is None else [domain], progress=progress))

    @property
    def halted(self) -> EventStoreError | None:
        """What stopped the writing, None while all is well."""
        return self._failstop.cause

    def resume(self) -> None:
        """Write again after a halt, once its cause is gone: every log is opened anew, judged as at the first opening, and folded again.

        Raises what still stands in the way, such as DiskFullError or TailLostError; the store then stays halted, and readable.
        """
        with self._opening:
            self._require_open()
            for group in self._groups.values():
                group.live.resume()
            self._failstop.clear()

    def close(self) -> None:
        """Write pointer files, checkpoint, release every lock; a second call does nothing.

        Every domain is tried even if one fails; the first failure is raised, and closing again tries that one again.
        """
        failure: EventStoreError | None = None
        with self._opening:
            self._closed = True
            for name, group in list(self._groups.items()):
                try:
                    group.live.close()
                    del self._groups[name]
                except EventStoreError as error:
                    failure = failure or error
            self._engine.close()
        if failure is not None:
            raise failure

    def _require_running(self, domain: str) -> None:
        """Raise HaltedError if writing was stopped and `domain` would have to be made."""
        refusal = self._failstop.refusal()
        if refusal is not None and domain not in self._engine.domains():
            raise refusal

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the store {self.location} was closed; open it again")

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's files and locks; the next use opens its own (RELIABILITY.md R9)."""
        self._opening = threading.Lock()
        self.clock.after_fork()
        self._cache.after_fork()
        self._engine.close()  # the owner's lease stays with the parent
        self._failstop.after_fork()
        for group in self._groups.values():
            group.after_fork()
            group.live.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<eventstore.Store {self.location}{' closed' if self._closed else ''}>"


def _append_all(log: EventLog, events: Iterable[Event], progress: Callable[[int], None] | None) -> None:
    head = log.head()
    batch: list[Event] = []
    for event in events:
        check(Head(batch[-1].position, batch[-1].checksum) if batch else head, event, log.domain)
        batch.append(event)
        if len(batch) == PAGE:
            head = _append_page(log, batch)
            batch = []
            if progress is not None:
                progress(head.position)
    if batch:
        _append_page(log, batch)


def _append_page(log: EventLog, batch: list[Event]) -> Head:
    with log.writing() as head:
        log.append(batch, after=head)
    return Head(batch[-1].position, batch[-1].checksum)


def _after_fork() -> None:
    for store in list(_open_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
