"""The keys of subjects, in a file of their own: who destroys a key destroys every value that was encrypted with it, backups included.

One line of JSON a key, after a line that says whose store they belong to. A new key is appended and synced before anything is
encrypted with it. Destroying one writes the file anew without it, and the old bytes over before they are given back. AES-256-GCM
with random nonces, by the extra `crypto`. The file belongs outside the store, and where its backups go, keys come back from.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.keyfiles import require_apart, require_private
from eventstore.clock import now_us
from eventstore.codec import FORMAT, other_format
from eventstore.errors import AccessError, ConfigError, EngineError, FormatError, NotFoundError
from eventstore.files import FILE_MODE, locked, os_errors, sync_folder

NONCE_BYTES = 12
KEY_BYTES = 32

_encode = msgspec.json.Encoder().encode


class _Version(msgspec.Struct, frozen=True):
    """The one member of the first line that every format has."""

    format: int


class _Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: whose keys these are."""

    format: int
    store_id: str


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A key, or what is left of one: then `key` is missing, and who destroyed it, when and why is said."""

    id: str
    subject: str
    made_us: int
    key: str | None = None
    shredded_us: int | None = None
    reason: str | None = None
    actor: str | None = None


_decode_version = msgspec.json.Decoder(_Version).decode
_decode_owner = msgspec.json.Decoder(_Owner).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


class Keyring:
    """The key file of one store; made when the first key is. Threads and processes may share it."""

    def __init__(self, path: Path, store_id: str) -> None:
        """Raises ConfigError for another store's file, one in a store's folder or that others may read, or a missing package;
        NewerFormatError, FormatError.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigError("encrypted values need the package cryptography: install eventstore-kit[crypto]") from error
        require_apart(path)
        self._aes: Any = AESGCM
        self.path = path
        self._store_id = store_id
        self._mutex = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, _Entry] = {}
        self._current: dict[str, str] = {}
        """The key that a subject's values are encrypted with now."""
        self._was_there = False
        """Whether the file was ever seen: then no other one is begun in its place."""
        with self._mutex, os_errors("reading the key file"):
            self._refresh()

    # ---- what coding.Cipher asks for

    def encrypt(self, subject: str, plain: bytes, bound: bytes) -> tuple[str, bytes]:
        """See Cipher.encrypt. The subject's key is made, durably, if there is none."""
        with self._mutex, os_errors("reading the key file"):
            self._refresh()
            key_id = self._current.get(subject) or self._make(subject)
            key = self._entries[key_id].key
        assert key is not None
        nonce = os.urandom(NONCE_BYTES)
        return key_id, nonce + self._aes(bytes.fromhex(key)).encrypt(nonce, plain, bound)

    def lives(self, key_id: str) -> bool:
        """See Cipher.lives: a look at the file's inode, time and size, unless it is another one by now."""
        with self._mutex, os_errors("reading the key file"):
            self._refresh()
            entry = self._entries.get(key_id)
        return entry is not None and entry.key is not None

    def decrypt(self, key_id: str, blob: bytes, bound: bytes) -> bytes | None:
        """See Cipher.decrypt. Raises KeyError for a key that this file never held, ValueError."""
        with self._mutex, os_errors("reading the key file"):
            self._refresh()
            entry = self._entries[key_id]
        if entry.key is None:
            return None
        from cryptography.exceptions import InvalidTag

        try:
            plain: bytes = self._aes(bytes.fromhex(entry.key)).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], bound)
        except InvalidTag as error:
            raise ValueError("altered, or moved here from another place") from error
        return plain

    def shred(self, subject: str, *, reason: str, actor: str | None) -> list[str]:
        """See Cipher.shred. Durable when it returns."""
        with self._mutex, os_errors("destroying a key"):
            with self._locked():
                entries = self._read()
                found = [entry for entry in entries if entry.subject == subject]
                if not found:
                    raise NotFoundError(f"no key of subject {subject!r} in {self.path}; nothing was destroyed")
                now = now_us()
                if any(entry.key is not None for entry in found):
                    self._replace([_destroyed(entry, now, reason, actor) if entry in found else entry for entry in entries])
            self._refresh()
            return [entry.id for entry in found]

    def after_fork(self) -> None:
        """See Cipher.after_fork."""
        self._mutex = threading.RLock()

    # ---- the file

    def _refresh(self) -> None:
        """Read the file if it is another one than was seen: another process may have made a key, or destroyed one."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            self._seen, self._entries, self._current = None, {}, {}
            return
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            entries = self._read()
            self._entries = {entry.id: entry for entry in entries}
            self._current = {entry.subject: entry.id for entry in entries if entry.key is not None}
            self._seen, self._was_there = seen, True

    def _read(self) -> list[_Entry]:
        """Every entry, in the order they were made; a last line without its end is one that is being written, or never was."""
        mode, content = self._content()
        if content is None:
            return []
        require_private(self.path, mode)
        first, *lines = content.split(b"\n")[:-1] or [b""]
        try:
            written_in = _decode_version(first).format
            if written_in != FORMAT:
                raise other_format(str(self.path), written_in)
            owner = _decode_owner(first)
            entries = [_decode_entry(line) for line in lines]
            for entry in entries:
                if entry.key is not None and len(bytes.fromhex(entry.key)) != KEY_BYTES:
                    raise ValueError(f"key {entry.id} is not of {KEY_BYTES} bytes")
        except (msgspec.MsgspecError, ValueError) as error:
            raise FormatError("keys", None, f"{self.path} is no key file, or damaged ({error}); put a copy back") from error
        if owner.store_id != self._store_id:
            raise ConfigError(f"{self.path} holds the keys of store {owner.store_id}, not of {self._store_id}; name this store's own file")
        return entries

    def _content(self) -> tuple[int, bytes | None]:
        """Mode and content of the file; None where there is none."""
        while True:
            try:
                with self.path.open("rb") as file:
                    status, content = os.fstat(file.fileno()), file.read()
                if os.stat(self.path).st_ino == status.st_ino:
                    return stat.S_IMODE(status.st_mode), content
            except FileNotFoundError:
                return 0, None
            # Another process has put a new file in its place, and writes this one over.

    def _make(self, subject: str) -> str:
        """Append a new key of a subject, unless another process was first; durable before anybody knows of it."""
        with self._locked():
            self._seen = None
            self._refresh()
            known = self._current.get(subject)
            if known is not None:
                return known
            entry = _Entry(secrets.token_hex(16), subject, now_us(), secrets.token_hex(KEY_BYTES))
            if self._was_there and self._seen is None:
                raise AccessError(f"{self.path} is gone, and with it every key: no new one is begun in its place; mount it, or put it back")
            if self.path.exists():
                self._append(_encode(entry) + b"\n")
            else:
                self._write_new([entry])
            self._seen = None
            self._refresh()
            return entry.id

    def _append(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "r+b") as file:
            content = file.read()
            file.seek(content.rfind(b"\n") + 1)  # whoever was killed in the midst of a line told nobody of that key
            file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _replace(self, entries: list[_Entry]) -> None:
        """Write the file anew, then the old bytes over: an unlinked file's blocks may be found by whoever has the disk."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            self._write_new(entries)
            _overwrite(descriptor, size)
        finally:
            os.close(descriptor)

    def _write_new(self, entries: list[_Entry]) -> None:
        """The whole file, under its name only once it is durable. Under the lock, so that one name for what is half made will do."""
        new = self.path.with_name(f".tmp-{self.path.name}")
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(new, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            _overwrite(descriptor, os.fstat(descriptor).st_size)  # a killed process left it: it may hold a key that is to go
            os.close(descriptor)
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_encode(_Owner(FORMAT, self._store_id)) + b"\n")
            file.writelines(_encode(entry) + b"\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.path)
        sync_folder(self.path.parent)

    def _locked(self) -> AbstractContextManager[object]:
        """Every change of the file is read, then written, by one process at a time."""
        return locked(self.path.with_name(f"{self.path.name}.lock"), timeout_ms=10_000)


def _destroyed(entry: _Entry, now: int, reason: str, actor: str | None) -> _Entry:
    if entry.key is None:
        return entry
    return _Entry(entry.id, entry.subject, entry.made_us, None, now, reason, actor)


def _overwrite(descriptor: int, size: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    if os.write(descriptor, bytes(size)) != size:
        raise EngineError("the old key file could not be written over whole; look at the disk, then destroy the key again")
    os.fsync(descriptor)
