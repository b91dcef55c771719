"""Namespaces: the stores below one folder, opened when they are asked for, closed least recently used when descriptors run out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from eventstore import manifest
from eventstore.adapters.event_shelf import EventBackend
from eventstore.errors import EventStoreError, NotFoundError, UnavailableError
from eventstore.files import make_folder, os_errors
from eventstore.store import Store

OWN = ""
"""The namespace that is the served folder itself."""

FOLDER = "ns"
"""Where in the served folder the other namespaces are."""

MAX_NAME_BYTES = 192
"""Of a namespace's folder name."""

DOMAIN_DESCRIPTORS = 8
"""What an open domain holds, and one for what it opens for a moment: a lock and a witness, a database and its WAL twice, its index."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_WAIT_S = 30.0
"""How long a request waits for another one's namespace to be given up."""

_log = logging.getLogger("eventstore")


class NamespaceError(ValueError):
    """What can be no namespace."""


class FolderGoneError(NamespaceError):
    """The folder of a namespace that was served is gone. What was acknowledged is not there, so nobody may take an empty store for it."""


def folder_name(namespace: str) -> str:
    """The name of a namespace's folder (FORMAT.md section 1): bytes outside a-z 0-9 _ - are %XX. Raises NamespaceError."""
    try:
        encoded = namespace.encode()
    except UnicodeEncodeError:
        raise NamespaceError("a namespace holds a lone surrogate, which is no character") from None
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in encoded)
    if not 0 < len(name) <= MAX_NAME_BYTES:
        raise NamespaceError(f"a namespace's folder has a name of 1 to {MAX_NAME_BYTES} bytes, not {len(name)}; all but a-z 0-9 _ - take 3")
    return name


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENDLESS if soft == resource.RLIM_INFINITY else soft


_ENDLESS = 2**20


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/dev/fd"))


class Namespace:
    """One store that is served: its records as JSON text, and who uses it."""

    def __init__(self, name: str, folder: Path, opening: Callable[[], Store]) -> None:
        self.name, self.folder = name, folder
        self.backend = EventBackend(opening, raw=True)
        self.users = 0
        self.domains: set[str] = set()
        """Those that a request has used: they are open."""
        self._stamp: tuple[int, ...] | None = None
        self._store_id: str | None = None

    async def stand(self) -> None:
        """The store was opened; from now on it is known which one it is."""
        if self._store_id is None and (store := await self.backend.store()).location != "memory:":
            self._store_id = store.store_id

    def stands(self) -> bool:
        """Whether the store that was opened is the one that stands in the folder; of one in memory nothing does."""
        if self._store_id is None:
            return True
        try:
            found = os.stat(self.folder / manifest.NAME)
            stamp = found.st_dev, found.st_ino, found.st_mtime_ns
            if stamp != self._stamp:  # it is replaced as the store goes on
                if manifest.load(self.folder).store_id != self._store_id:
                    return False
                self._stamp = stamp
        except (OSError, EventStoreError):
            return False
        return True


Opening = Callable[[Path, bool], Store]
"""Opens the store in a folder; true for the served folder itself, which is opened once, and under an owner's name."""


class Namespaces:
    """The stores below a folder. `descriptors`: how many the process may have before somebody idle has to go."""

    def __init__(self, folder: Path, opening: Opening, *, descriptors: int) -> None:
        self.folder = folder
        self._opening, self._descriptors = opening, descriptors
        self._own = Namespace(OWN, folder, lambda: opening(folder, True))
        self._open: OrderedDict[str, Namespace] = OrderedDict()
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._served: set[str] = set()
        """Those in which something may have been acknowledged: none of them is made a second time."""
        self._entering = 0
        """Requests that were let in for a domain that nobody has opened before: their descriptors are still to come."""
        self._left = asyncio.Event()
        """Set, and replaced, when a request has ended."""

    @property
    def opened(self) -> int:
        """How many are open, the served folder's own among them."""
        return len(self._open) + 1

    async def start(self) -> None:
        """Open the served folder's own store, and take its lease. Raises OwnedError, and what opening a store raises."""
        await self.own()

    async def own(self) -> Store:
        """The served folder's own store."""
        return await self._own.backend.store()

    @contextlib.asynccontextmanager
    async def using(self, name: str, domain: str, *, create: bool = True) -> AsyncIterator[Namespace]:
        """A namespace of which one domain is used; it stays open meanwhile. `create`: make the store if it is missing.

        Raises NamespaceError, FolderGoneError, NotFoundError, UnavailableError where everything open is in use for too long;
        what opening a store raises.
        """
        namespace = await self._enter(name, domain, create)
        new = domain not in namespace.domains
        self._entering += new
        namespace.users += 1
        try:
            yield namespace
            if namespace is not self._own:
                await namespace.stand()
                self._served.add(name)
            namespace.domains.add(domain)
        finally:
            self._entering -= new
            namespace.users -= 1
            self._left.set()
            self._left = asyncio.Event()
            if not namespace.domains and not namespace.users and namespace is not self._own:
                await self._close(namespace)  # it could not be opened, and holds nothing

    async def _enter(self, name: str, domain: str, create: bool) -> Namespace:
        try:
            async with asyncio.timeout(_WAIT_S):
                while True:
                    if name in self._closing:
                        await asyncio.shield(self._closing[name])
                        continue
                    namespace = self._found(name, create)
                    if name in self._open and namespace.domains and not namespace.stands():
                        _log.error("namespace %r: %s was removed or replaced while it was served; it is closed", name, namespace.folder)
                        await self._close(namespace)
                        continue
                    # True without a pause: nobody else has done anything since it was found.
                    if domain in namespace.domains or await self._has_room():
                        break
        except TimeoutError:
            raise UnavailableError("too many namespaces are in use at this moment; try again") from None
        if namespace is not self._own:
            self._open[name] = namespace
            self._open.move_to_end(name)
        return namespace

    def _found(self, name: str, create: bool) -> Namespace:
        if name == OWN:
            return self._own
        if name in self._open:
            return self._open[name]
        folder = self._folder_of(name) if create else self.existing(name)
        if name in self._served and not (folder / manifest.NAME).exists():
            raise FolderGoneError(
                f"the folder of namespace {name!r} was removed while it was served, with all that was acknowledged: put it back,"
                " or make an empty store there, by `eventstore init`"
            )
        return Namespace(name, folder, lambda: self._made(folder))

    def _folder_of(self, name: str) -> Path:
        return self.folder / FOLDER / folder_name(name)

    def existing(self, name: str) -> Path:
        """The folder of a namespace that is there. Raises NamespaceError, NotFoundError."""
        folder = self.folder if name == OWN else self._folder_of(name)
        if not (folder / manifest.NAME).exists():
            raise NotFoundError(f"no namespace {name!r}")
        return folder

    def is_there(self, name: str) -> bool:
        """Whether a namespace has a store, or had one that was served. Raises NamespaceError."""
        return name == OWN or name in self._open or name in self._served or (self._folder_of(name) / manifest.NAME).exists()

    async def halted(self) -> bool:
        """Whether a store that is open has stopped writing."""
        stores = [await self.own(), *[await namespace.backend.store() for namespace in self._open.values() if namespace.domains]]
        return any(store.halted is not None for store in stores)

    async def running(self, name: str) -> Store:
        """The store of a namespace that is open at this moment. Raises NotFoundError."""
        if name == OWN:
            return await self.own()
        if name not in self._open:
            raise NotFoundError(f"no namespace {name!r} is open")
        return await self._open[name].backend.store()

    def _made(self, folder: Path) -> Store:
        with os_errors(f"making {folder.parent}"):
            make_folder(folder.parent)
        return self._opening(folder, False)

    async def _has_room(self) -> bool:
        """Whether there are descriptors for one more domain; if not, some were given up by now, and it is to be asked again."""
        if open_descriptors() + DOMAIN_DESCRIPTORS * (self._entering + 1) <= self._descriptors:
            return True
        idle = next((namespace for namespace in self._open.values() if not namespace.users and namespace.domains), None)
        if idle is not None:
            await self._close(idle)
        elif self._closing:
            await asyncio.wait(self._closing.values(), return_when=asyncio.FIRST_COMPLETED)
        elif self._entering or any(namespace.users for namespace in self._open.values()) or self._own.users:
            await self._left.wait()
        else:
            return True  # nobody could go: one request alone is let in whatever there is
        return False

    async def _close(self, namespace: Namespace) -> None:
        if self._open.pop(namespace.name, None) is None:
            return  # somebody else closes it
        self._closing[namespace.name] = asyncio.create_task(self._closed(namespace))
        await asyncio.shield(self._closing[namespace.name])

    async def _closed(self, namespace: Namespace) -> None:
        try:
            await namespace.backend.close()
        except EventStoreError as error:  # it was in nobody's use; whoever opens it next is told what is wrong with it
            _log.warning("namespace %r: %s", namespace.name, error)
        finally:
            # Not by a callback, which comes a turn of the loop later: who waits for what is done already gives the loop no turn at all.
            del self._closing[namespace.name]

    async def close(self) -> None:
        """Close all, once the writes under way are done. Raises the first error after all were tried."""
        for namespace in list(self._open.values()):
            await self._close(namespace)
        if self._closing:
            await asyncio.wait(self._closing.values())
        await self._own.backend.close()
