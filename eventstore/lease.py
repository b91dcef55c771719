"""Lease: the one process that acts under an owner's name (RELIABILITY.md, promises)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from eventstore.clock import now_us
from eventstore.errors import ConfigError, OwnedError, UnavailableError
from eventstore.files import LockFile, make_folder, os_errors

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Holder(msgspec.Struct, frozen=True):
    """What the file of a lease says of who holds it."""

    owner: str
    pid: int
    since_us: int


class Lease:
    """An flock on STORE/owners/<owner>, held for as long as the store is open: it ends with the process, however that dies.

    The lock is the lease; what the file says is only for whoever finds it taken.
    """

    def __init__(self, store: Path, owner: str) -> None:
        require_owner_name(owner)
        self.path = store / "owners" / owner
        self._store, self._owner = str(store), owner
        self._file = LockFile(self.path)
        self._holder = Holder(owner, os.getpid(), now_us())
        self.take()

    def take(self) -> None:
        """Take it, unless this process has it. Raises OwnedError."""
        if self._file.descriptor >= 0:
            return
        with os_errors(f"taking the lease of {self._owner}"):
            make_folder(self.path.parent)
            self._file.open(os.O_RDWR | os.O_CREAT)
            try:
                self._take()
            except BaseException:
                self.release()
                raise

    def _take(self) -> None:
        try:
            self._file.lock(f"the lease of {self._owner}", timeout_ms=0)
        except UnavailableError as error:
            raise self._owned(error.holder) from error
        self._holder = Holder(self._owner, os.getpid(), now_us())
        os.ftruncate(self._file.descriptor, 0)
        os.pwrite(self._file.descriptor, msgspec.json.encode(self._holder), 0)

    def _owned(self, holder: int | None) -> OwnedError:
        try:
            found = msgspec.json.decode(os.pread(self._file.descriptor, 4_096, 0), type=Holder)
        except msgspec.MsgspecError:  # it is being written this very moment
            return OwnedError(self._store, self._owner, holder, None)
        if holder is not None and holder != found.pid:  # the new holder has the lock, and has not said so yet
            return OwnedError(self._store, self._owner, holder, None)
        return OwnedError(self._store, self._owner, found.pid, found.since_us)

    def left_to_parent(self) -> OwnedError:
        """In a forked child: it is the parent's, whether that still lives or not. The error that says so."""
        self.release()
        return OwnedError(self._store, self._owner, self._holder.pid, self._holder.since_us)

    def release(self) -> None:
        """Let another process take it. A forked child has none that it could give back; the parent goes on holding it."""
        self._file.close()


def require_owner_name(owner: object) -> None:
    """Raise ConfigError unless `owner` can be the name of a file everywhere."""
    if not isinstance(owner, str) or not _NAME.fullmatch(owner) or ".." in owner:
        raise ConfigError(f"owner {owner!r}: 1 to 64 of A-Z a-z 0-9 _ . - are allowed, starting with a letter or digit, without '..'")
