"""The framework's own JSON files: the layout that it has, written so that a power cut takes nothing that was acknowledged.

A record is a file, and the ids are its path, so this keeps only what a path can say: no `/` in an id, and of two contexts whose
parts make one folder's name together ("a" and "b_c", "a_b" and "c") the one that came first. What it cannot keep apart it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from eventstore.adapters.contracts import Contract
from eventstore.adapters.json_layout import ADVICE, CLAIM, LONGEST_NAME, QUARANTINE, SUFFIX, TEMPORARY, Layout, ids
from eventstore.adapters.shelf import ABSENT, Parts, Shelf, When, as_json
from eventstore.errors import ConfigError, ContractError, InvalidValueError
from eventstore.files import FILE_MODE, make_folder, os_errors, read_file, refusal, sync_folder
from eventstore.values import decode_value, encode_value, may_be_json

P = ParamSpec("P")
R = TypeVar("R")

ROOT = "dump"
"""Where the framework keeps its files: this folder of the working directory."""

STALE_S = 120
"""Seconds after which such a half belongs to nobody any more."""


class Logger(Protocol):
    """What reports are told to: a logging.Logger, or whatever has these two of its methods."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Something was put in order."""
        ...

    def warning(self, msg: str, /, *args: Any) -> Any:
        """Something is wrong, and was gone around."""
        ...


_log: Logger = logging.getLogger("eventstore")


def set_logger(logger: Logger | None) -> None:
    """Tell `logger` what is found in files and put aside; None: logging's logger `eventstore`. Raises ConfigError for what is none."""
    global _log
    given = logging.getLogger("eventstore") if logger is None else logger
    missing = [name for name in ("info", "warning") if not callable(getattr(given, name, None))]
    if missing:
        raise ConfigError(f"{given!r} is no logger: it lacks {' and '.join(missing)}")
    _log = given


class JsonBackend:
    """Shelves that are folders below `root`. One thread of its own reads and writes, so what is asked for first happens first."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self._shelves: dict[str, Shelf] = {}
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._thread = ThreadPoolExecutor(1, "eventstore-json")

    async def shelf(self, contract: Contract) -> Shelf:
        """See Backend.shelf."""
        return self._shelves.setdefault(contract.name, JsonShelf(JsonFiles(self.root, contract), self))

    async def in_order(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work(...)`, after all that was asked for before."""
        if self._pid != os.getpid():
            self._start()  # in a forked child: the thread is the parent's
        return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))


class JsonShelf:
    """JsonFiles, awaited."""

    def __init__(self, files: JsonFiles, backend: JsonBackend) -> None:
        self._files, self._in_order = files, backend.in_order

    async def prepare(self, context: Parts) -> None:
        """See Shelf.prepare: halves of writes that somebody left long ago are removed."""
        await self._in_order(self._files.sweep, context)

    async def read(self, key: Parts) -> Any:
        """See Shelf.read. A record that was removed says so in its member `removed`."""
        return await self._in_order(self._files.read, key)

    async def has(self, key: Parts) -> bool:
        """See Shelf.has."""
        return await self._in_order(self._files.has, key)

    async def write(self, key: Parts, value: Any, when: When | None, event_id: str | None = None) -> None:
        """See Shelf.write. A file has no place for `when`, nor for `event_id`."""
        await self._in_order(self._files.write, key, text_of(value))

    async def write_rows(self, rows: Sequence[tuple[Parts, Any]], event_id: str | None = None) -> None:
        """See Shelf.write_rows. Each is whole or not there; cut short, some are."""
        await self._in_order(self._files.write_rows, [(key, text_of(value)) for key, value in rows])

    async def remove(self, key: Parts, event_id: str | None = None) -> bool:
        """See Shelf.remove."""
        return await self._in_order(self._files.remove, key)

    async def items(self, context: Parts) -> list[tuple[str, Any]]:
        """See Shelf.items."""
        return await self._in_order(lambda: list(self._files.items(context)))

    async def read_candles(self, context: Parts, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """See Shelf.read_candles."""
        return await self._in_order(self._files.read_candles, context, since, step, limit)

    async def add_candles(self, context: Parts, candles: Sequence[dict[str, Any]]) -> None:
        """See Shelf.add_candles."""
        rows = [((*context, candle["timestamp"]), text_of(candle)) for candle in candles]
        await self._in_order(self._files.write_rows, rows)


class JsonFiles:
    """The files of one contract. Raises ContractError for a key that no path can say, EngineError and its kinds for the machine."""

    def __init__(self, root: Path, contract: Contract) -> None:
        self._root, self._contract, self._layout = root, contract, Layout(root, contract)
        self._ours: set[Parts] = set()

    # ---- whose a folder is

    def _require_ours(self, key: Parts, folder: Path, *, claim: bool = False) -> None:
        """Hold a folder against what it says of whose it is. Raises ContractError.

        It says so where its name does not: some of the parts that are joined by `_` hold one. Whoever writes there first is the owner.
        """
        context = key[: len(self._contract.context)]
        if context in self._ours or not self._layout.is_joined:
            return
        odd, said = self._layout.is_odd(context), folder / CLAIM
        if odd and folder.is_dir() and not said.exists():
            raise ContractError(f"{self._layout.where(context)}: {folder} is there, and by its name another context's; {ADVICE}")
        if claim:
            self._make_folder(folder)
            if odd or self._layout.is_ambiguous(context):
                _create(said, json.dumps(context).encode())
        owner = self._owner(said)
        if owner is not None and owner != context:
            raise ContractError(f"{self._layout.where(context)}: {folder} is the folder of {list(owner)!r}: both have one name; {ADVICE}")
        if claim or owner is not None:
            self._ours.add(context)

    def _owner(self, said: Path) -> Parts | None:
        try:
            return tuple(json.loads(read_file(said)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError):
            expected = ", ".join(self._contract.context)
            raise ContractError(f"{said} should say whose this folder is, as a list of {expected}, and does not") from None

    # ---- what is in it

    def sweep(self, context: Parts) -> None:
        """Remove halves of writes that are older than STALE_S."""
        folder, oldest = self._layout.folder(context), time.time() - STALE_S
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(folder):
                try:
                    if entry.name.startswith(TEMPORARY) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
                        _log.info("%s: removed, the half of a write that was cut short", entry.path)
                except OSError as error:
                    _log.warning("%s: the half of a write that was cut short cannot be removed: %s", entry.path, refusal(error))

    def read(self, key: Parts) -> Any:
        """The record, ABSENT if there is none. A document that is no JSON is put aside, reported, and counts as none.

        Raises InvalidValueError for one that is JSON beyond what can be read here; it stays where it is.
        """
        path = self._layout.path(key)
        with os_errors(f"reading {path}"):
            self._require_ours(key, path.parent)
            return self._read(path)

    def _read(self, path: Path) -> Any:
        if not path.is_file():  # nor a pipe, which would be waited for for ever
            return ABSENT
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return ABSENT
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            self._put_aside(path, error)
            return ABSENT
        try:
            return decode_value(text)
        except InvalidValueError as error:
            if may_be_json(text):
                raise InvalidValueError(f"{path} cannot be read here, and stays as it is: {error}") from error
            self._put_aside(path, error)
            return ABSENT

    def _put_aside(self, path: Path, error: Exception) -> None:
        aside = self._root / QUARANTINE / path.relative_to(self._root)
        self._make_folder(aside.parent)
        aside = aside.with_name(f"{aside.name[:LONGEST_NAME]}.{secrets.token_hex(4)}")
        path.rename(aside)
        sync_folder(aside.parent)
        sync_folder(path.parent)
        _log.warning("%s is no JSON document (%s): it was put aside as %s, and counts as never written", path, error, aside)

    def has(self, key: Parts) -> bool:
        """Whether there is a file."""
        path = self._layout.path(key)
        with os_errors(f"looking for {path}"):
            self._require_ours(key, path.parent)
            return path.is_file()

    def write(self, key: Parts, text: str) -> None:
        """Put a document in place, whole, and durable when this returns."""
        self._put([(key, self._layout.path(key), text.encode())])

    def write_rows(self, rows: Sequence[tuple[Parts, str]]) -> None:
        """Write the documents that are not there, or, unless the first stands, are there with other bytes."""
        given = [
            (key, self._layout.path(key), text.encode()) for key, text in rows
        ]  # a key that cannot be is refused before anything is written
        # Asked one by one, as they are written: of two rows with one id the second is held against the first.
        self._put((key, path, content) for key, path, content in given if not self._stands(path, content))

    def _stands(self, path: Path, content: bytes) -> bool:
        with os_errors(f"reading {path}"):
            return path.is_file() and (self._contract.write == "first" or path.read_bytes() == content)

    def _put(self, documents: Iterable[tuple[Parts, Path, bytes]]) -> None:
        """Write documents, each whole; then make their names durable, a folder at a time."""
        folders: set[Path] = set()
        for key, path, content in documents:
            with os_errors(f"writing {path}"):
                self._require_ours(key, path.parent, claim=True)
                self._make_folder(path.parent)
                with _half(path, content) as temporary:
                    temporary.rename(path)
            folders.add(path.parent)
        for folder in folders:
            with os_errors(f"writing {folder}"):
                sync_folder(folder)

    def remove(self, key: Parts) -> bool:
        """Mark the document as removed where the contract has it so, else remove it; False if it was."""
        path = self._layout.path(key)
        with os_errors(f"removing {path}"):
            if not self._contract.soft:
                if not path.is_file():
                    return False
                path.unlink()
                sync_folder(path.parent)
                return True
            value = self.read(key)
        if value is ABSENT or (isinstance(value, dict) and value.get("removed") is True):
            return False
        self.write(key, text_of({**(value if isinstance(value, dict) else {}), "removed": True}))
        return True

    def items(self, context: Parts) -> Iterator[tuple[str, Any]]:
        """The documents of a context's folder, by their names without the suffix."""
        folder = self._layout.folder(context)
        with os_errors(f"listing {folder}"):
            try:
                names = os.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                return
            for id_ in ids(names):
                value = self._read(folder / (id_ + SUFFIX))
                if value is not ABSENT:
                    yield id_, value

    def read_candles(self, context: Parts, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """The candles, a file each; None at the first that is missing."""
        found: list[dict[str, Any]] = []
        for place in range(limit):
            candle = self.read((*context, since + place * step))
            if not isinstance(candle, dict):
                return None
            found.append(candle)
        return found

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, each durable."""
        missing = [folder]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for each in reversed(missing):
            make_folder(each)


def text_of(value: Any) -> str:
    """The JSON text of a record. Raises InvalidValueError."""
    if isinstance(value, msgspec.Raw):
        return encode_value(value)
    try:
        return encode_value(value)
    except InvalidValueError:
        return encode_value(as_json(value))


def _create(path: Path, content: bytes) -> None:
    """Make a file that is there whole, or leave the one that is there."""
    if not path.exists():
        with _half(path, content) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def _half(path: Path, content: bytes) -> Iterator[Path]:
    """The first half of an atomic write: a file beside `path` that holds its content, durably; gone at the end unless it was renamed."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
