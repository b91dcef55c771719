"""The file `head` of a domain: the lock of its writers, the witness of its last durable position, a hint for its readers.

    bytes 0-47   the witness: position u64, checksum, sha256 of both [:8]     the last event known to be DURABLE
    bytes 48-55  the hint: position u64                                       the last event acknowledged at any level

The witness notices what SQLite hides: recovery drops every WAL frame after the first bad one without an error
(RELIABILITY.md R1, R2). The hint is mapped into memory and lets a reader see in a tenth of a microsecond that nothing
was written since; `PRAGMA data_version` costs some forty times that. The hint is never believed further than
"look at the log again".
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path

from eventstore.errors import AccessError, FencedError
from eventstore.files import LockFile, inode, os_errors, stat_or_none
from eventstore.model import Head

_WITNESS = struct.Struct(">Q32s8s")
_HINT = struct.Struct(">Q")
WITNESS_BYTES = _WITNESS.size
_FILE_BYTES = WITNESS_BYTES + _HINT.size
_read_hint = _HINT.unpack_from


def pack_witness(head: Head) -> bytes:
    """The 48 bytes that witness `head`."""
    body = head.position.to_bytes(8, "big") + head.checksum
    return body + hashlib.sha256(body).digest()[:8]


def unpack_witness(content: bytes) -> Head | None:
    """The head that these 48 bytes witness, or None if their own check does not hold."""
    if len(content) != WITNESS_BYTES:
        return None
    position, checksum, _ = _WITNESS.unpack(content)
    head = Head(position, checksum)
    return head if pack_witness(head) == content else None


class HeadFile:
    """One open `head` file. Never unlinked, never replaced: its inode is the lock."""

    def __init__(self, path: Path, *, writable: bool, create: bool = False) -> None:
        self.path = path
        self._writable = writable
        self._file = LockFile(path)
        self._name = str(path)
        self._inode = (0, 0)
        self._map: mmap.mmap | None = None
        self.witnessed: Head | None = None
        """The last head this process wrote into the witness, or read from it under the lock."""
        with os_errors(f"opening {path}"):
            if not writable and stat_or_none(path) is None:
                return  # a damaged store may lack its head file and must be readable all the same
            self._file.open((os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0))
            status = os.fstat(self._file.descriptor)
        if status.st_nlink > 1:
            self._file.close()
            raise AccessError(f"{path} has {status.st_nlink} hard links: two stores would share one lock; remove the other names")
        self._inode = (status.st_dev, status.st_ino)

    def lock(self, what: str, timeout_ms: int) -> None:
        """Exclude every other writer of the domain; readers of a damaged or read-only store only each other's writers."""
        self._file.lock(what, shared=not self._writable, timeout_ms=timeout_ms)

    def unlock(self) -> None:
        """Let the next writer in."""
        self._file.unlock()

    def require_same(self) -> None:
        """Raise FencedError if the path no longer leads to the file that is locked."""
        found = inode(self._name)
        if found != self._inode:
            raise FencedError(
                f"{self.path} was {'replaced' if found else 'removed'} under the open store; close it and look at the files there"
            )

    def free_bytes(self) -> int:
        """What this user may still write on the file system that the file lies on."""
        found = os.fstatvfs(self._file.descriptor)
        return found.f_bavail * found.f_frsize

    def read(self) -> bytes:
        """The witness as it stands, b"" if none was written yet. Call under the lock."""
        return os.pread(self._file.descriptor, WITNESS_BYTES, 0) if self._file.descriptor >= 0 else b""

    def refresh(self) -> Head | None:
        """Read the witness again, as another process may have written it. Call under the lock."""
        self.witnessed = unpack_witness(self.read())
        return self.witnessed

    def witness(self, head: Head, *, sync: bool = False) -> None:
        """Record that everything up to `head` is durable; `sync` makes this record durable too ("power+")."""
        self._write(pack_witness(head) + _HINT.pack(head.position), 0)
        if sync:
            os.fsync(self._file.descriptor)
        self.witnessed = head

    def hint(self, position: int) -> None:
        """Tell readers that `position` is acknowledged, though perhaps not durable."""
        if os.fstat(self._file.descriptor).st_size >= WITNESS_BYTES:
            self._write(_HINT.pack(position), WITNESS_BYTES)

    def _write(self, content: bytes, offset: int) -> None:
        """All of it: where space runs out a write may stop half-way without an error, and half a witness is damage."""
        written = os.pwrite(self._file.descriptor, content, offset)
        while written < len(content):
            written += os.pwrite(self._file.descriptor, content[written:], offset + written)

    def moved(self, position: int) -> bool:
        """Whether the hint says something else than `position`."""
        view = self._map
        if view is None:
            view = self._map = self._mapped()
            if view is None:
                return True
        hinted: int = _read_hint(view, WITNESS_BYTES)[0]
        return hinted != position

    def _mapped(self) -> mmap.mmap | None:
        # By a descriptor of its own: readers hold no lock, so the file's may be closed, and its number another file's by now.
        try:
            descriptor = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                # Reading a mapping beyond the end of its file is SIGBUS, so a file without a hint is not mapped.
                if (status.st_dev, status.st_ino) != self._inode or status.st_size < _FILE_BYTES:
                    return None
                return mmap.mmap(descriptor, _FILE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
            finally:
                os.close(descriptor)
        except OSError:
            return None  # no file, no descriptor to spare, no memory: without a hint the log itself is asked, which says so if it cannot be

    def close(self) -> None:
        """Release the lock, the mapping and the file. Readers may still ask `moved`."""
        self._map = None  # only let go of: a reader may hold it, and the last to do so unmaps it
        self._file.close()
