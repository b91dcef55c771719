"""The embedded engine: a folder with a manifest and one SqliteLog a domain (FORMAT.md section 1)."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from eventstore import copies, manifest
from eventstore.carried import Beginning
from eventstore.database import log_file, log_files
from eventstore.errors import ConfigError, FencedError, NotAStoreError, OwnedError
from eventstore.files import make_folder, os_errors, sync_folder
from eventstore.lease import Lease
from eventstore.model import MIN_FREE_BYTES, Domain, Durability, Event, WriteRule, is_domain_name
from eventstore.rolling import begin_log
from eventstore.sqlite import SqliteLog


class LocalEngine:
    """The Engine of a store in a folder. Links are followed once, here: two paths to one store share its locks."""

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        store_id: str | None = None,
        read_only: bool = False,
        durability: Durability = "power",
        busy_timeout_ms: int = 10_000,
        min_free_bytes: int = MIN_FREE_BYTES,
        owner: str | None = None,
        archives: Sequence[Path] = (),
    ) -> None:
        if durability == "memory":
            raise ConfigError("durability 'memory' is that of a memory: store; a folder has process, power or power+")
        if owner is not None and read_only:
            raise ConfigError("an owner is who writes; open with read_only, or with an owner")
        self.folder = copies.opened(Path(os.path.realpath(folder)), read_only=read_only)
        self.read_only = read_only
        self.durability: Durability = durability
        self._busy_timeout_ms, self._min_free_bytes = busy_timeout_ms, min_free_bytes
        self._archives = [Path(os.path.realpath(folder)) for folder in archives]
        with os_errors(f"opening the store in {self.folder}"):
            if self.folder.exists() and not self.folder.is_dir():
                raise NotAStoreError(str(folder), "not a folder; a store is a folder")
            if create and not read_only and not (self.folder / manifest.NAME).exists():
                found = manifest.create(self.folder, store_id)
            else:
                found = manifest.load(self.folder)
        if store_id is not None and store_id != found.store_id:
            raise ConfigError(f"{folder} already is store {found.store_id}; a store_id can be chosen for a new folder only")
        self.store_id = found.store_id
        self.created_us = found.created_us
        self._heads = manifest.Heads(self.folder)
        self._lease = None if owner is None else Lease(self.folder, owner)

    def domains(self) -> list[str]:
        """See Engine.domains: those that have files, and those that store.json knows, so that a lost one is missed."""
        with os_errors(f"listing {self.folder}"):
            return self._domains()

    def _require_same_store(self) -> manifest.Manifest:
        """What store.json says. Raises FencedError if another store stands where ours was, NotAStoreError if none does."""
        found = manifest.load(self.folder)
        if found.store_id != self.store_id:
            raise FencedError(
                f"{self.folder} is another store now, {found.store_id}, and not {self.store_id}, which was opened;"
                " close it, and open the one you mean"
            )
        return found

    def _domains(self) -> list[str]:
        present = {folder.name for folder in self.folder.glob("logs/*") if is_domain_name(folder.name) and _may_hold_a_log(folder)}
        return sorted(present | set(self._require_same_store().heads))

    def open_log(self, name: str, write: WriteRule | None = None, *, accept_loss: bool = False) -> SqliteLog:
        """See Engine.open_log."""
        Domain(name)
        self._require_same_store()
        return SqliteLog(
            self.folder,
            name,
            store_id=self.store_id,
            write=write,
            durability=self.durability,
            read_only=self.read_only,
            accept_loss=accept_loss,
            archives=self.archives(name),
            busy_timeout_ms=self._busy_timeout_ms,
            min_free_bytes=self._min_free_bytes,
            heads=self._heads,
        )

    @contextlib.contextmanager
    def adopting(self, name: str, birth: Event, beginning: Beginning | None = None) -> Iterator[SqliteLog]:
        """See Engine.adopting: the log grows in a store of its own beside the others, and is moved in place whole."""
        Domain(name)
        self._require_same_store()
        with os_errors(f"adopting domain {name}"):
            scratch = Path(tempfile.mkdtemp(prefix=".tmp-adopt-", dir=self.folder))
            try:
                manifest.create(scratch, self.store_id)
                if beginning is not None:
                    make_folder(scratch / "logs" / name)
                    begin_log(log_file(scratch / "logs" / name, beginning.floor + 1), beginning, name)
                log = SqliteLog(
                    scratch,
                    name,
                    store_id=self.store_id,
                    birth=birth,
                    busy_timeout_ms=self._busy_timeout_ms,
                    min_free_bytes=self._min_free_bytes,
                )
                try:
                    yield log
                    head = log.head()
                finally:
                    log.close()
                if name in self.domains():
                    raise ConfigError(f"{name} exists already; events are adopted into a new domain only")
                self._remove_half_made(name)
                (scratch / "logs" / name).rename(self.folder / "logs" / name)
                sync_folder(self.folder / "logs")
                manifest.raise_head(self.folder, name, head)
            finally:
                shutil.rmtree(scratch)

    def _remove_half_made(self, name: str) -> None:
        """A process killed while it made this domain leaves a folder without a log, perhaps with a `head`."""
        folder = self.folder / "logs" / name
        if folder.exists() and not log_files(folder):
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def inspect(self, name: str) -> Iterator[SqliteLog]:
        """See Engine.inspect."""
        Domain(name)
        log = SqliteLog(
            self.folder,
            name,
            store_id=self.store_id,
            read_only=True,
            archives=self.archives(name),
            busy_timeout_ms=self._busy_timeout_ms,
        )
        try:
            yield log
        finally:
            log.close()

    def archives(self, name: str) -> list[Path]:
        """The folders in which sealed files of a domain may stand besides its own: ARCHIVE/<store id>/<domain>/."""
        return [folder / self.store_id / name for folder in self._archives]

    def pointers(self, name: str) -> Path:
        """See Engine.pointers."""
        return self.folder / "logs" / name / "pointers"

    def after_fork(self) -> OwnedError | None:
        """See Engine.after_fork: a lease stays with the parent, so the child may not act under the owner's name."""
        return None if self._lease is None else self._lease.left_to_parent()

    def resume(self) -> None:
        """See Engine.resume."""
        if self._lease is not None:
            self._lease.take()

    def closing(self) -> AbstractContextManager[None]:
        """See Engine.closing."""
        return self._heads.together()

    def close(self) -> None:
        """See Engine.close."""
        if self._lease is not None:
            self._lease.release()


def _may_hold_a_log(folder: Path) -> bool:
    """Whether there is one, or nobody may look: opening it will say so, not naming it would hide it."""
    try:
        return bool(log_files(folder))
    except PermissionError:
        return True
