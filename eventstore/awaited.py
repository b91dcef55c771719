"""Store, DomainStore and DomainView, awaited. One body: every verb is the synchronous one (eventstore.aio is the way in).

Reads that memory can answer are answered at once; whatever touches the disk runs in a thread of the store's own, so no
verb waits for it in the event loop. A value is taken when it is handed over, as it is then; what is long to do for it after
that, in a thread, too (writes.py). Writes that tasks make at the same time share a transaction (group.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from eventstore import domain as threads
from eventstore import intents
from eventstore import store as stores
from eventstore import view as views
from eventstore.commit import Call
from eventstore.errors import ClosedError, EngineError, EventStoreError
from eventstore.group import GroupCommit, Waiting, receipts_of
from eventstore.meta import EventMeta
from eventstore.model import Domain, Durability, Key, Receipt
from eventstore.writes import Batch, Ready, Writes

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("eventstore")

_PAGE = 64
"""Items that an iteration fetches at a time."""
_THREADS = 4
"""For writing, and as many for reading: domains beyond that many wait for one another, which costs less than a thread each."""
_TURNS = 16
"""Transactions after which a thread that writes looks whether another domain waits for it."""


class _Pool:
    """The threads of one store, and whether it is open."""

    def __init__(self) -> None:
        self._closed = False
        self._inboxes: weakref.WeakValueDictionary[tuple[GroupCommit, asyncio.AbstractEventLoop], _Inbox] = weakref.WeakValueDictionary()
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        # Apart: a thread that reads may wait for one that writes (update_value), so these must not wait for those.
        self._readers = ThreadPoolExecutor(_THREADS, "eventstore-read")
        self._writers = ThreadPoolExecutor(_THREADS, "eventstore-write")

    async def read(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`verb(...)` in a thread."""
        return await self.begun(functools.partial(verb, *args, **kwargs))

    def begun(self, work: Callable[[], R]) -> asyncio.Future[R]:
        """What `work()` will give, in a thread."""
        return asyncio.wrap_future(self._submit(work))

    def inbox(self, group: GroupCommit) -> _Inbox:
        """The one of the running loop for a domain, however often it was opened: its calls keep their order."""
        place = (group, asyncio.get_running_loop())
        found = self._inboxes.get(place)
        if found is None:
            found = self._inboxes[place] = _Inbox(group, self)
        return found

    async def whole(self, verb: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`verb(...)`, which may write, in a thread. Cancelled, it does not begin, or else the cancellation waits for its end."""
        work = self._submit(functools.partial(verb, *args, **kwargs))
        done = asyncio.wrap_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                if work.cancel():
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled from done.exception()
        return done.result()

    def _submit(self, work: Callable[[], R]) -> Future[R]:
        self.require_open()
        try:
            return self._readers.submit(work)
        except RuntimeError:
            self.require_open()  # it was closed this very moment
            raise

    def write(self, work: Callable[[], None]) -> bool:
        """Have `work` done by a thread that writes; False if they have ended."""
        try:
            self._writers.submit(work)
        except RuntimeError:
            return False
        return True

    def why_no_thread(self, event_id: str | None) -> EventStoreError:
        """What to answer a write for which there is none."""
        if self._closed:
            return ClosedError("the store was closed; open it again")
        return EngineError("no thread could be started to write; end some, then try again", event_id=event_id)

    def require_open(self) -> None:
        """Raise ClosedError after close()."""
        if self._closed:
            raise ClosedError("the store was closed; open it again")

    async def close(self, closing: Callable[[], None]) -> None:
        """Do `closing` once everything under way is done, and the threads have ended."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._end, closing)

    def _end(self, closing: Callable[[], None]) -> None:
        self._readers.shutdown()  # first: what they write may need those that write
        self._writers.shutdown()
        closing()

    def after_fork(self) -> None:
        """In a forked child: the threads are the parent's."""
        self._start()


_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---- reading


def _awaited(verb: Callable[Concatenate[views.DomainView, P], R]) -> Callable[Concatenate[DomainView, P], Coroutine[Any, Any, R]]:
    """A verb that may touch the disk: in a thread."""

    @functools.wraps(verb)
    async def awaited(self: DomainView, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.read(verb, self._view, *args, **kwargs)

    return awaited


def _at_hand(
    verb: Callable[Concatenate[views.DomainView, Key, P], R],
) -> Callable[Concatenate[DomainView, Key, P], Coroutine[Any, Any, R]]:
    """A verb about one key: here and now if memory answers it, else in a thread."""

    @functools.wraps(verb)
    async def awaited(self: DomainView, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._view.at_hand(key):
            return verb(self._view, key, *args, **kwargs)
        return await self._pool.read(verb, self._view, key, *args, **kwargs)

    return awaited


def _streamed(
    verb: Callable[Concatenate[views.DomainView, P], Iterator[R]],
) -> Callable[Concatenate[DomainView, P], AsyncIterator[R]]:
    """A verb that iterates: for `async for`, a page at a time."""

    @functools.wraps(verb)
    async def streamed(self: DomainView, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        items = await self._pool.read(verb, self._view, *args, **kwargs)
        while page := await self._pool.read(list, islice(items, _PAGE)):
            for item in page:
                yield item

    return streamed


class DomainView:
    """eventstore.DomainView, awaited; what iterates is for `async for`. Arguments, answers and errors are those of its namesakes."""

    def __init__(self, view: views.DomainView, pool: _Pool) -> None:
        self.domain = view.domain
        self._view, self._pool = view, pool

    @property
    def name(self) -> str:
        """The domain's name."""
        return self._view.name

    @property
    def floor(self) -> int:
        """See eventstore.DomainView.floor."""
        return self._view.floor

    # Assigned, not written out, so that no argument and no docstring can differ from the synchronous verb's.
    read_value = _at_hand(views.DomainView.read_value)
    get = _at_hand(views.DomainView.get)
    has_value = _at_hand(views.DomainView.has_value)
    state_of = _at_hand(views.DomainView.state_of)
    head = _awaited(views.DomainView.head)
    text_of = _awaited(views.DomainView.text_of)
    event = _awaited(views.DomainView.event)
    keys = _streamed(views.DomainView.keys)
    values = _streamed(views.DomainView.values)
    items = _streamed(views.DomainView.items)
    events = _streamed(views.DomainView.events)
    history = _streamed(views.DomainView.history)


# ---- writing


class _Awaiting(Waiting):
    """A call that a task waits for."""

    __slots__ = ("future",)

    def __init__(self, call: Call, inbox: _Inbox) -> None:
        super().__init__(call, inbox)
        self.future: asyncio.Future[None] = inbox.loop.create_future()


class _Inbox:
    """The calls of one event loop to one domain: committed by the pool's threads, answered in one go for each transaction."""

    def __init__(self, group: GroupCommit, pool: _Pool) -> None:
        self.loop = asyncio.get_running_loop()
        self._group, self._pool = group, pool
        self._told: deque[Waiting] = deque()
        self._waking = self._leading = False
        self._turn, self._in_turn = asyncio.Lock(), 0
        """Whose turn it is to queue up, and of how many, while a call that is long to make is not in the queue yet."""

    async def commit(self, call: Ready) -> list[Receipt]:
        """The receipts of `call`. Cancelled, it is taken back if that is still possible; else the cancellation waits for the answer."""
        waiting = self._queued(call) if isinstance(call, Call) and not self._in_turn else await self._queued_in_turn(call)
        cancelled: asyncio.CancelledError | None = None
        while waiting.answer is None:
            try:
                await waiting.future
            except asyncio.CancelledError as error:
                if self._group.withdraw(waiting):
                    raise
                cancelled, waiting.future = error, self.loop.create_future()
        if cancelled is not None:
            raise cancelled from (waiting.answer if isinstance(waiting.answer, BaseException) else None)
        return receipts_of(waiting)

    def _queued(self, call: Call) -> _Awaiting:
        self._pool.require_open()
        waiting = _Awaiting(call, self)
        self._group.submit(waiting)
        if not self._leading:
            self._leading = True
            # Not at once: the tasks that are ready now will share the transaction, and the thread has the interpreter for itself.
            self.loop.call_soon(self._start)
        return waiting

    async def _queued_in_turn(self, call: Ready) -> _Awaiting:
        """Queue a call once it is made, in a thread, behind those that came before it. Cancelled before that, it never will be queued."""
        making = call if isinstance(call, Call) else self._pool.begun(call)
        self._in_turn += 1
        try:
            async with self._turn:  # first come, first served
                return self._queued(making if isinstance(making, Call) else await making)
        finally:
            self._in_turn -= 1
            if isinstance(making, asyncio.Future) and not making.cancel() and not making.cancelled():
                making.exception()  # nobody else will ask for it

    def put(self, waiting: Waiting, /) -> None:
        """See Inbox.put."""
        if waiting.answer is None:
            if not self._leading:
                self._leading = True
                self._start()
            return
        self._told.append(waiting)
        if not self._waking:
            self._waking = True
            try:
                self.loop.call_soon_threadsafe(self._wake)
            except RuntimeError:
                return  # the loop was closed: nobody waits any more

    def _wake(self) -> None:
        self._waking = False
        while self._told:
            waiting = self._told.popleft()
            if isinstance(waiting, _Awaiting) and not waiting.future.done():
                waiting.future.set_result(None)

    def _start(self) -> None:
        """See to it that a thread commits what waits; if there is none any more, say so to whoever waits."""
        if self._pool.write(self._run):
            return
        self._leading = False
        for waiting in self._group.queued_in(self):
            if self._group.withdraw(waiting):
                waiting.answer = self._pool.why_no_thread(waiting.call.event_id)
                self.put(waiting)

    def _run(self) -> None:
        # No domain has a thread for itself: where more waits, its next turn comes after those that wait for one.
        if not (self._commit_some() and self._pool.write(self._run)):
            self._leading = False
            # Asked again with the flag down: whoever queued up while it was up left the rest to this thread.
            if self._group.queued and not self._leading:
                self._leading = True
                self._start()
        # Last, as a hook may wait for a write of this very domain.
        self._group.tell()

    def _commit_some(self) -> bool:
        """Commit what waits; True if more waits after some turns."""
        turns = _TURNS
        try:
            while turns and self._group.queued:
                turns -= 1
                self._group.lead(wait=True)
        except Exception:  # noqa: BLE001  whoever waited was told; the thread goes on for the others
            _log.exception("domain %s: a write failed in an unforeseen way", self._group.live.log.domain)
        return self._group.queued


def _in_thread(
    verb: Callable[Concatenate[threads.DomainStore, P], R],
) -> Callable[Concatenate[DomainStore, P], Coroutine[Any, Any, R]]:
    """A verb that reads, then writes: in a thread."""

    @functools.wraps(verb)
    async def awaited(self: DomainStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.whole(verb, self._domain, *args, **kwargs)

    return awaited


class DomainStore(Writes[Coroutine[Any, Any, Receipt], Coroutine[Any, Any, list[Receipt]]], DomainView):
    """eventstore.DomainStore, awaited. A cancelled write has either happened as a whole or not at all, and is never under way.

    What is wrong with a value is raised by the call, or, where it is large, compressed or encrypted, when it is awaited.
    """

    _hurried = True

    def __init__(self, domain: threads.DomainStore, pool: _Pool) -> None:
        DomainView.__init__(self, domain, pool)
        self._domain, self._inbox = domain, pool.inbox(domain.group)
        self._live, self._actor, self._max_value_bytes = domain._live, domain._actor, domain._max_value_bytes

    async def _one(self, call: Ready) -> Receipt:
        return (await self._many(call))[0]

    async def _many(self, call: Ready) -> list[Receipt]:
        inbox = self._inbox
        if inbox.loop is not asyncio.get_running_loop():  # opened in one loop, used in another
            inbox = self._inbox = self._pool.inbox(self._domain.group)
        return await inbox.commit(call)

    update_value = _in_thread(threads.DomainStore.update_value)
    restore_value = _in_thread(threads.DomainStore.restore_value)
    redact = _in_thread(threads.DomainStore.redact)
    redact_encrypted = _in_thread(threads.DomainStore.redact_encrypted)
    redact_told = _in_thread(threads.DomainStore.redact_told)

    @asynccontextmanager
    async def batch(self, *, event_id: str | None = None, durability: Durability | None = None) -> AsyncIterator[Batch]:
        """See eventstore.DomainStore.batch: `async with`; what is added inside needs no await. What is large may be refused at the end."""
        batch = Batch(self)
        try:
            yield batch
        finally:
            batch.ended = True
        batch.receipts = await self._many(self._ready(batch.drafts, event_id, durability))

    async def state(self, as_of: datetime | int | None = None) -> DomainView:
        """See eventstore.DomainStore.state."""
        return DomainView(await self._pool.read(self._domain.state, as_of), self._pool)


# ---- the store


def _of_store(
    verb: Callable[Concatenate[stores.Store, P], R],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, R]]:
    """A verb of the store: in a thread."""

    @functools.wraps(verb)
    async def awaited(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.read(verb, self._store, *args, **kwargs)

    return awaited


def _of_store_whole(
    verb: Callable[Concatenate[stores.Store, P], R],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, R]]:
    """A verb of the store that writes: in a thread, and not left alone when it is cancelled."""

    @functools.wraps(verb)
    async def awaited(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._pool.whole(verb, self._store, *args, **kwargs)

    return awaited


class OpenIntent:
    """eventstore.OpenIntent, for `async with`. A cancelled block leaves its effect uncertain, as a crash does."""

    def __init__(self, opening: Callable[[], intents.OpenIntent], pool: _Pool) -> None:
        self._opening, self._pool = opening, pool

    async def __aenter__(self) -> Self:
        self._intent = await self._pool.read(self._opening)
        await self._pool.whole(self._intent.__enter__)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._pool.whole(self._intent.__exit__, kind, error, trace)

    @property
    def effect(self) -> Any:
        """See eventstore.OpenIntent.effect."""
        return self._intent.effect

    @property
    def uncertain(self) -> bool:
        """See eventstore.OpenIntent.uncertain."""
        return self._intent.uncertain

    @property
    def status(self) -> intents.IntentStatus:
        """See eventstore.OpenIntent.status."""
        return self._intent.status

    async def done(self, result: Any = None) -> Receipt:
        """See eventstore.OpenIntent.done."""
        return await self._pool.whole(self._intent.done, result)

    async def fail(self, reason: str) -> Receipt:
        """See eventstore.OpenIntent.fail."""
        return await self._pool.whole(self._intent.fail, reason)


class Store:
    """eventstore.Store, awaited. Made by eventstore.aio.open(); an async context manager that closes."""

    def __init__(self, store: stores.Store) -> None:
        self._store = store
        self._pool = _Pool()

    @property
    def location(self) -> str:
        """Where the store is."""
        return self._store.location

    @property
    def store_id(self) -> str:
        """32 hexadecimal digits that no other store has."""
        return self._store.store_id

    @property
    def created_us(self) -> int:
        """When the store was made, in microseconds."""
        return self._store.created_us

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._store.read_only

    @property
    def halted(self) -> EventStoreError | None:
        """What stopped the writing, None while all is well."""
        return self._store.halted

    domains = _of_store(stores.Store.domains)
    accept = _of_store_whole(stores.Store.accept)
    adopt = _of_store_whole(stores.Store.adopt)
    seal = _of_store_whole(stores.Store.seal)
    archive = _of_store_whole(stores.Store.archive)
    plan_retention = _of_store_whole(stores.Store.plan_retention)
    retain = _of_store_whole(stores.Store.retain)
    verify = _of_store(stores.Store.verify)
    anchor = _of_store(stores.Store.anchor)
    bundle = _of_store(stores.Store.bundle)
    backup = _of_store(stores.Store.backup)
    shred = _of_store_whole(stores.Store.shred)
    resume = _of_store_whole(stores.Store.resume)
    metrics = _of_store(stores.Store.metrics)
    uncertain = _of_store(stores.Store.uncertain)

    def intent(
        self, event_id: str, effect: Any, *, resume: bool = False, durability: Durability | None = None, **meta: Unpack[EventMeta]
    ) -> OpenIntent:
        """See eventstore.Store.intent: `async with store.intent("order-17", order) as intent:`."""
        opening = functools.partial(self._store.intent, event_id, effect, resume=resume, durability=durability, **meta)
        return OpenIntent(opening, self._pool)

    async def domain(self, domain: str | Domain) -> DomainStore:
        """See eventstore.Store.domain."""
        found = await self._pool.read(self._store.domain, domain)
        return DomainStore(found, self._pool)

    async def close(self) -> None:
        """See eventstore.Store.close; waits for the writes under way."""
        await self._pool.close(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<eventstore.aio.Store {self.location}>"
