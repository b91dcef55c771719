"""store.json: whose store this is, and how far each of its logs had come at the last checkpoint."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import msgspec

from eventstore import files
from eventstore.clock import now_us
from eventstore.codec import FORMAT, other_format
from eventstore.database import log_files
from eventstore.errors import FormatError, NotAStoreError
from eventstore.files import make_folder, os_errors, read_file, replace_file, sync_folder
from eventstore.model import Head

NAME = "store.json"
LOCK_NAME = "store.lock"


class ManifestHead(msgspec.Struct, frozen=True):
    """A Head with its checksum in hexadecimal."""

    position: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    checksum: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

    def head(self) -> Head:
        """The Head this stands for."""
        return Head(self.position, bytes.fromhex(self.checksum))


class Manifest(msgspec.Struct, frozen=True):
    """The content of store.json (FORMAT.md section 1)."""

    format: int
    store_id: str
    created_us: int
    heads: dict[str, ManifestHead]


class _Versioned(msgspec.Struct):
    format: int
    store_id: str


def load(folder: Path) -> Manifest:
    """Read store.json. Raises NotAStoreError, StoreFormatError, FormatError; touches nothing."""
    path = folder / NAME
    with os_errors(f"reading {path}"):
        try:
            content = read_file(path)
        except FileNotFoundError:
            raise NotAStoreError(str(folder), _why_no_manifest(folder)) from None
    try:
        found = msgspec.json.decode(content, type=_Versioned)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAStoreError(str(path), f"not the manifest of an event store ({error})") from error
    if found.format != FORMAT:
        raise other_format(str(path), found.format)
    try:
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError("store", None, f"{path} is damaged: {error}") from error


def _why_no_manifest(folder: Path) -> str:
    if not folder.exists():
        return "no store here; `eventstore init` makes one"
    if any(log_files(log) for log in folder.glob("logs/*")):
        return (
            f"{NAME} is missing, but there are logs under logs/: do not start over; put {NAME} back from a backup,"
            " or carve the events out into a new store: `eventstore salvage`"
        )
    return f"no store here: {NAME} is missing; `eventstore init` makes one in an empty folder"


def create(folder: Path, store_id: str | None = None) -> Manifest:
    """Make a store in `folder`, which must be empty, missing, or left half made by a killed process.

    store.json comes last: a folder with it is whole. Raises NotAStoreError for a folder that holds anything else.
    """
    with os_errors(f"making a store in {folder}"):
        make_folder(folder)
        # Somebody else may have made it, and not made its name durable. A parent that must not be read is not ours to sync.
        with contextlib.suppress(PermissionError):
            sync_folder(folder.parent)
        _require_empty(folder)  # before the lock, which would already leave a file there
        with locked(folder):
            if (folder / NAME).exists():
                return load(folder)
            _require_empty(folder)
            make_folder(folder / "logs")
            manifest = Manifest(FORMAT, store_id or secrets.token_hex(16), now_us(), {})
            replace_file(folder / NAME, msgspec.json.encode(manifest))
            return manifest


def _require_empty(folder: Path) -> None:
    foreign = sorted(entry.name for entry in list(folder.iterdir()) if not _ours_half_made(entry))
    # Asked last: another process may be making the very same store, and its first domain.
    if foreign and not (folder / NAME).exists():
        names = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise NotAStoreError(str(folder), f"the folder is not empty and holds no store ({names}); {_why_no_manifest(folder)}")


def _ours_half_made(entry: Path) -> bool:
    if entry.name == "logs":
        return not any(entry.iterdir())
    return entry.name == LOCK_NAME or (entry.name.startswith(".tmp-") and entry.name.endswith(NAME))


def raise_head(folder: Path, domain: str, head: Head) -> None:
    """Record that the log of `domain` had come this far; heads only rise."""
    _raise_heads(folder, {domain: head})


def reset_head(folder: Path, domain: str, head: Head) -> None:
    """Record `head` even if it lies below the known one: the only case is a loss that was accepted."""
    with locked(folder):
        _replace_heads(folder, load(folder), {domain: head})


class Heads:
    """What the logs of a store that are open here put on record at their checkpoints: at once, or for several of them together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._together: dict[str, Head] | None = None

    def raise_head(self, domain: str, head: Head) -> None:
        """As raise_head(), or at the end of together()."""
        together = self._together
        if together is None:
            raise_head(self._folder, domain, head)
        else:
            together[domain] = head

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """While several logs are closed: store.json is replaced once, not for each of them.

        Whoever is killed meanwhile leaves older heads there, as between a checkpoint and its record: the witnesses say more.
        """
        self._together = {}
        try:
            yield
        finally:
            heads, self._together = self._together, None
            if heads:
                with os_errors(f"recording the heads of the store in {self._folder}"):
                    _raise_heads(self._folder, heads)


def _raise_heads(folder: Path, heads: dict[str, Head]) -> None:
    with locked(folder):
        manifest = load(folder)
        risen = {
            domain: head
            for domain, head in heads.items()
            if (known := manifest.heads.get(domain)) is None or known.position < head.position
        }
        if risen:
            _replace_heads(folder, manifest, risen)


def _replace_heads(folder: Path, manifest: Manifest, heads: dict[str, Head]) -> None:
    said = {domain: ManifestHead(head.position, head.checksum.hex()) for domain, head in heads.items()}
    merged = dict(sorted({**manifest.heads, **said}.items()))
    replace_file(folder / NAME, msgspec.json.encode(msgspec.structs.replace(manifest, heads=merged)))


def locked(folder: Path) -> AbstractContextManager[object]:
    """Hold store.lock: every change of store.json is read, merge, replace."""
    return files.locked(folder / LOCK_NAME, timeout_ms=10_000)
