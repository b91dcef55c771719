"""What we ask of the disk: private folders, whole files or none, one lock. Every OSError leaves here as one of ours."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":  # there, opening a folder is refused before anything here is called
    import fcntl
    import resource

from eventstore.errors import AccessError, DiskFullError, EngineError, ReadOnlyError, UnavailableError

FOLDER_MODE = 0o700
FILE_MODE = 0o600

_DEFERRED = {signal.SIGINT, signal.SIGTERM}
# The function behind the module's wrapper, which makes enums of the old mask: several microseconds that every write would pay.
_sigmask: Any = getattr(getattr(signal, "_signal", signal), "pthread_sigmask", None)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_DENIED = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG}


OUT_OF_DESCRIPTORS = "too many files are open: raise the limit (`ulimit -n`), or keep fewer stores and domains open in one process"
OUT_OF_SPACE = "free some space, or raise the limit of file sizes (`ulimit -f`), and try again"

_ADVICE = {
    **dict.fromkeys(_FULL, OUT_OF_SPACE),
    **dict.fromkeys(_NO_DESCRIPTORS, OUT_OF_DESCRIPTORS),
    **dict.fromkeys(_DENIED, "check owner, permissions and links of that path"),
    errno.EROFS: "open with read_only=True to read",
    errno.ENOENT: "look whether the path is right; a folder that is missing must be made first",
    errno.EISDIR: "a file is expected here: name one",
    errno.ENOTDIR: "a folder is expected where a file is: name another",
}
"""What to do about it."""


@contextlib.contextmanager
def os_errors(doing: str) -> Iterator[None]:
    """Turn an OSError into the EngineError that says what was being done, and to which path."""
    try:
        yield
    except OSError as error:
        raise refusal(error, doing) from error


def refusal(error: OSError, doing: str = "") -> EngineError:
    """The EngineError that an OSError is: what was being done, what the system says, of which path, and what to do about it."""
    message = f"{doing}: {error.strerror or error}" if doing else error.strerror or str(error)
    if error.filename and not isinstance(error.filename, int):
        path = os.fsdecode(error.filename)
        folder, name = os.path.split(path)
        message += f" ({folder or os.curdir if name.startswith('.tmp-') else path})"  # what is half made is nobody's to look for
    if error.errno in _ADVICE:
        message += f"; {_ADVICE[error.errno]}"
    if error.errno in _FULL:
        return DiskFullError(message)
    if error.errno == errno.EROFS:
        return ReadOnlyError(message)
    return AccessError(message) if error.errno in _DENIED else EngineError(message)


def has_descriptors(count: int) -> bool:
    """Whether this process may open `count` more files now; by opening them, as no limit tells how many it has."""
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _NO_DESCRIPTORS:
            return False
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def file_size_limit() -> int | None:
    """How many bytes a file may grow to in this process (RLIMIT_FSIZE), None where nothing limits it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a file's own fsync does not (its entry may be lost with the power)."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable. Not for one that SQLite has open in this process (RELIABILITY.md R4)."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW)


def make_folder(folder: Path) -> None:
    """Make `folder`, private and durable, unless it exists; its parent must exist."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=FOLDER_MODE)
        sync_folder(folder.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all, durably: temporary file beside it, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{random.randbytes(4).hex()}-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append_lines(path: Path, lines: Iterable[bytes], *, anew: bool = False) -> None:
    """Add whole lines to a journal, durably, in the order in which they are given; `anew`: in the place of all that it had.

    Each stands behind a line end of its own, as the power may have taken half of the one before. Raises OSError.
    """
    content = b"".join(b"\n" + line + b"\n" for line in lines)
    how = os.O_TRUNC if anew else os.O_APPEND
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how, FILE_MODE)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def lines_of(path: Path) -> list[bytes]:
    """The lines of a journal; those among them that are empty, or that the power took half of, say nothing. Raises OSError."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def copy_files(paths: Iterable[Path], folder: Path) -> None:
    """Copy files into `folder`, durably, by a subprocess. Raises EngineError, DiskFullError.

    Closing a descriptor of a database in this process would drop the locks SQLite holds on it (RELIABILITY.md R4).
    """
    present = [path for path in paths if path.exists()]
    command = ["cp", "-p", "--", *map(str, present), str(folder)]
    # LC_ALL, and SIGXFSZ left ignored as Python has it: cp has words alone to tell a full disk by, and must live to say them.
    environment = {**os.environ, "LC_ALL": "C"}
    copied = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, restore_signals=False)
    if copied.returncode != 0:
        said = copied.stderr.strip() or f"cp ended with {copied.returncode}"
        with os_errors(f"copying into {folder}"):
            raise OSError(next((number for number in _FULL if said.endswith(os.strerror(number))), 0), said)
    # cp leaves them in the cache: evidence that the next power loss takes along is none.
    for path in present:
        sync_file(folder / path.name)
    sync_folder(folder)


_HASH = """import hashlib, os, sys
durable, *paths = sys.argv[1:]
for path in paths:
    try:
        with open(path, "rb") as file:
            if durable == "True":
                os.fsync(file.fileno())
            print(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        print("?", error.strerror)"""


def sha256_each(paths: Sequence[Path], *, durable: bool = False) -> list[str | EngineError]:
    """SHA-256 of each file's bytes, in hexadecimal, or why it cannot be had; by a subprocess, for the reason that copy_files() has.

    With `durable` the bytes are made so.
    """
    if not paths:
        return []
    command = [sys.executable, "-I", "-S", "-c", _HASH, str(durable), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    if done.returncode != 0 or len(told) != len(paths):
        raise EngineError(f"reading {paths[0]} and others: {done.stderr.strip() or 'no answer'}")
    return [EngineError(f"reading {path}: {line[2:]}") if line.startswith("?") else line for path, line in zip(paths, told, strict=True)]


def sha256_of(path: Path, *, durable: bool = False) -> str:
    """The same of one file. Raises EngineError."""
    (found,) = sha256_each([path], durable=durable)
    if isinstance(found, EngineError):
        raise found
    return found


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files of one folder, those that are there, durably."""
    for path in (paths := list(paths)):
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        sync_folder(folder)


@contextlib.contextmanager
def working_folder(target: Path, doing: str) -> Iterator[Path]:
    """A private folder beside `target` to make it in; gone afterwards, and what a killed process left of the same work goes first."""
    whose = _whose(target, doing)
    remove_abandoned(target.parent, rf"{re.escape(whose)}-(\d+)-.+")
    folder = Path(tempfile.mkdtemp(prefix=f"{whose}-{os.getpid()}-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def half_made(target: Path) -> Path:
    """The name under which this process makes the file `target`; what a killed process left of it is removed."""
    whose = _whose(target, "file")
    remove_abandoned(target.parent, rf"{re.escape(whose)}-(\d+)-.+")
    return target.with_name(f"{whose}-{os.getpid()}-{secrets.token_hex(4)}")


def _whose(target: Path, doing: str) -> str:
    return f".tmp-{doing}-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}"  # the name itself might be too long


def remove_abandoned(folder: Path, name: str) -> None:
    """Remove what killed processes left half made: our own files and folders so named, of a process, group 1, that runs no more.

    They may hold plain copies of values. What cannot be removed stays: it is in nobody's way.
    """
    for path in folder.iterdir():
        found = re.fullmatch(name, path.name)
        if found is None or process_lives(int(found[1])):
            continue
        with contextlib.suppress(OSError):
            if os.stat(path, follow_symlinks=False).st_uid == os.geteuid():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def process_lives(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def open_regular(path: Path) -> IO[bytes]:
    """A regular file, to be read; never waits for a pipe that has its name. Raises OSError, also for whatever else that is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
    raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, f"a regular file is expected, and this is {kind}", os.fspath(path))


def read_file(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, as open_regular()."""
    with open_regular(path) as file:
        return file.read()


def stat_or_none(path: Path) -> os.stat_result | None:
    """What the system says of `path` itself, None if there is nothing."""
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def inode(path: str) -> tuple[int, int] | None:
    """What tells a file from another that later takes its name; None if there is none. Asked before every write."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def signal_mask() -> set[int] | None:
    """The signals held back in this thread now; None outside the main thread, the only one Python handles signals in."""
    return None if threading.current_thread() is not threading.main_thread() else set(_sigmask(signal.SIG_BLOCK, ()))


def defer_signals(before: set[int] | None) -> None:
    """Let no Ctrl-C come between BEGIN and the receipt (R6), until restore_signals(); `before` is what signal_mask() gave."""
    if before is not None:
        _sigmask(signal.SIG_BLOCK, _DEFERRED)


def restore_signals(before: set[int] | None) -> None:
    """Let in the signals that defer_signals() kept out; one that waited is handled here."""
    if before is not None:
        _sigmask(signal.SIG_SETMASK, before)


def lock(descriptor: int, what: str, *, shared: bool = False, timeout_ms: int) -> None:
    """flock `descriptor`, waiting at most `timeout_ms`. Raises UnavailableError with the holder's pid where it is known.

    flock, not fcntl: closing any other descriptor of the file would drop a POSIX lock (RELIABILITY.md R4).
    Polled, because flock knows no timeout; the pauses are shorter than one fsync and random, so nobody starves.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    deadline = None
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            now = time.monotonic()
            deadline = deadline or now + timeout_ms / 1_000
            if now >= deadline:
                holder = lock_holder(os.fstat(descriptor))
                by = f"process {holder}" if holder else "another process or thread"
                raise UnavailableError(
                    f"{what}: locked by {by} for more than {timeout_ms} ms; wait for it to finish, or raise busy_timeout_ms", holder=holder
                ) from None
            time.sleep(random.uniform(0.0001, 0.0005))


def lock_bytes(descriptor: int, start: int, length: int) -> None:
    """Share a POSIX lock on a range of a file, as SQLite does, at once. Raises OSError."""
    fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)


_no_fork = threading.RLock()
"""Held while the descriptor of a LockFile comes or goes: a fork in between would copy one that nobody closes."""
_lock_files: weakref.WeakSet[LockFile] = weakref.WeakSet()


class LockFile:
    """A file that is flocked while it is open; a forked child closes its copy before it does anything else (RELIABILITY.md R9).

    The lock belongs to what was opened, not to who opened it: a copy would hold it on for as long as the child lives.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        """-1 unless it is open."""

    def open(self, flags: int) -> None:
        """Open it, with these flags, and not through a link. Raises OSError."""
        with _no_fork:
            self.descriptor = os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
            _lock_files.add(self)

    def lock(self, what: str, *, shared: bool = False, timeout_ms: int) -> None:
        """See lock(); nothing, unless it is open."""
        if self.descriptor >= 0:
            lock(self.descriptor, what, shared=shared, timeout_ms=timeout_ms)

    def unlock(self) -> None:
        """Release the lock; harmless if none was taken."""
        if self.descriptor >= 0:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close it, and with that release the lock, in a forked child its copy alone; a second call does nothing."""
        with _no_fork:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __del__(self) -> None:
        self.close()  # what was forgotten unclosed, such as a store, holds nothing


def _before_fork() -> None:
    _no_fork.acquire()


def _after_fork_in_parent() -> None:
    _no_fork.release()


def _after_fork_in_child() -> None:
    global _no_fork
    _no_fork = threading.RLock()
    for file in list(_lock_files):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def locked(path: Path, *, timeout_ms: int) -> Iterator[LockFile]:
    """Hold a lock file, made where it is missing, against every other process and thread. Raises OSError, UnavailableError."""
    file = LockFile(path)
    file.open(os.O_RDWR | os.O_CREAT)
    try:
        file.lock(str(path), timeout_ms=timeout_ms)
        yield file
    finally:
        file.close()


def lock_holder(status: os.stat_result) -> int | None:
    """The pid of a process that holds this file against others, from /proc/locks; None where that does not tell."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        table = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in table.splitlines():
        fields = line.split()
        if "->" not in fields and device in fields and "WRITE" in fields:
            pid = int(fields[4])
            if pid > 0:
                return pid
    return None
