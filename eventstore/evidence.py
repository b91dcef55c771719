"""What is left of a domain: copies of its files and of those in quarantine, and the heads that anybody witnessed.

The originals are never opened by SQLite, nor by this process: closing a descriptor of a database would drop the locks that
a store open in this process holds on it (RELIABILITY.md R4). A subprocess copies them while the domain's lock is held,
shared if the media allow no more, so that no append and no checkpoint of a living writer is caught half done; the lock is
given back as soon as the copies are there. A writer that holds it for longer is named by an UnavailableError.
"""

from __future__ import annotations

import mmap
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.carver import Content, Image, page_sizes, user_version
from eventstore.database import USER_VERSION
from eventstore.files import copy_files, os_errors, stat_or_none
from eventstore.manifest import Manifest
from eventstore.model import Head, is_domain_name
from eventstore.recovery import domain_in_quarantine
from eventstore.witness import WITNESS_BYTES, HeadFile, unpack_witness

_LOG = re.compile(r"([0-9]{20}\.db)(?:-wal)?")


class Source(msgspec.Struct, frozen=True):
    """A database file and its WAL, cut into pages of one size; `name` is the database's path inside the store."""

    name: str
    image: Image
    bytes: int
    in_quarantine: bool


class Evidence(msgspec.Struct):
    """All that is left of one domain."""

    domain: str
    store_id: str | None = None
    """As the manifest says; None where it is gone."""
    sources: list[Source] = []
    trusted: list[Head] = []
    """What the store's own witness and manifest know: the end of the history that counts."""
    witnessed: list[Head] = []
    """What witnesses in quarantine know, perhaps of a history that was given up since."""
    problems: list[str] = []


def domains(store: Path, known: Iterable[str]) -> list[str]:
    """The names of all domains that left anything: files, copies in quarantine, or an entry in the manifest (`known`)."""
    with os_errors(f"listing {store}"):
        names = {folder.name for folder in store.glob("logs/*") if _logs(folder)}
        names |= {name for folder in store.glob("quarantine/*") if (name := domain_in_quarantine(folder.name)) and _logs(folder)}
    return sorted(name for name in names | set(known) if is_domain_name(name))


def gather(
    store: Path, domain: str, scratch: Path, *, known: Manifest | None, archives: Sequence[Path] = (), busy_timeout_ms: int
) -> Evidence:
    """Copy what is left of `domain`, in the store and in `archives`, into `scratch`, a private folder, and look at nothing else then.

    Raises UnavailableError with the holder of the lock, EngineError where a file cannot be copied.
    """
    evidence = Evidence(domain, known.store_id if known is not None else None, sources=[], trusted=[], witnessed=[], problems=[])
    live = store / "logs" / domain
    with os_errors(f"copying what is left of domain {domain}"):
        copied = [(live, _copy_locked(live, scratch / "log", evidence, busy_timeout_ms))]
        for number, folder in enumerate(_quarantined(store, domain)):
            copied.append((folder, _copy(folder, scratch / f"quarantine-{number}", evidence)))
            witness = folder / "head"
            if witness.is_file() and (witnessed := unpack_witness(witness.read_bytes()[:WITNESS_BYTES])) is not None:
                evidence.witnessed.append(witnessed)
        for number, folder in enumerate(_archived(archives, evidence)):
            copied.append((folder, _copy(folder, scratch / f"archive-{number}", evidence)))
        for folder, copy in copied:
            place = folder.relative_to(store) if folder.is_relative_to(store) else folder
            for name in _logs(copy):
                _add_sources(evidence, copy / name, str(place / name), in_quarantine=folder.parent == store / "quarantine")
    head = known.heads.get(domain) if known is not None else None
    if head is not None:
        evidence.trusted.append(head.head())
    return evidence


def _logs(folder: Path) -> list[str]:
    """The names of the database files that stand here, or whose WAL still does."""
    if not folder.is_dir():
        return []
    return sorted({found[1] for path in folder.iterdir() if (found := _LOG.fullmatch(path.name))})


def _quarantined(store: Path, domain: str) -> list[Path]:
    return sorted(folder for folder in store.glob("quarantine/*") if domain_in_quarantine(folder.name) == domain and folder.is_dir())


def _archived(archives: Iterable[Path], evidence: Evidence) -> list[Path]:
    """Where the domain's files are in archives: under the store's id, or, where nobody knows it, under any."""
    return [place for folder in archives for place in sorted(folder.glob(f"{evidence.store_id or '*'}/{evidence.domain}")) if _logs(place)]


def _copy_locked(live: Path, target: Path, evidence: Evidence, busy_timeout_ms: int) -> Path:
    """Copy the log itself while nobody can write it, and read its witness."""
    head_file = HeadFile(live / "head", writable=False)
    try:
        head_file.lock(f"copying what is left of domain {evidence.domain}", busy_timeout_ms)
        content = head_file.read()
        _copy(live, target, evidence)
    finally:
        head_file.close()
    witnessed = unpack_witness(content)
    if witnessed is not None:
        evidence.trusted.append(witnessed)
    elif _logs(live):
        evidence.problems.append(
            f"{'the witness is damaged' if content else 'there is no witness'}: whether events are missing at the end cannot be told"
        )
    return target


def _copy(folder: Path, target: Path, evidence: Evidence) -> Path:
    target.mkdir(parents=True)
    files = []
    for path in (folder / f"{name}{suffix}" for name in _logs(folder) for suffix in ("", "-wal")):
        status = stat_or_none(path)
        if status is not None and not stat.S_ISREG(status.st_mode):
            evidence.problems.append(f"{path} is no file but a link, or something else, and was not read; put the file itself there")
        elif status is not None:
            files.append(path)
    if files:
        copy_files(files, target)
    return target


def _add_sources(evidence: Evidence, database: Path, name: str, *, in_quarantine: bool) -> None:
    wal = database.with_name(f"{database.name}-wal")
    contents = _content(database), _content(wal)
    version = user_version(contents[0])
    if version not in (None, USER_VERSION):
        # Damage, or a format that this version does not know; then none of its rows can be proven, and that is told.
        evidence.problems.append(f"{name} says that its user_version is {version}, expected {USER_VERSION}")
    for size in page_sizes(*contents):
        evidence.sources.append(Source(name, Image(*contents, size), sum(map(len, contents)), in_quarantine))


def _content(path: Path) -> Content:
    """A copy's bytes, mapped: however large it is, no more of it is in memory than is looked at."""
    status = stat_or_none(path)
    if status is None or status.st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def bytes_of(sources: Iterable[Source]) -> Iterator[tuple[str, int]]:
    """Each file group once, by name, with its size."""
    yield from {source.name: source.bytes for source in sources}.items()
