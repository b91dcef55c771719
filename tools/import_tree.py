"""A tree of JSON files into a store: bytes verbatim, the time of the last change as `when`, and again as often as one likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from eventstore.domain import DomainStore
from eventstore.errors import ContractError, CorruptionError, InvalidValueError
from eventstore.store import Store
from eventstore.tools.contract_tree import require_paths
from eventstore.tools.imported import ImportReport, Problem
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import Progress
from eventstore.tools.tree import JsonFile, keys_by_domain, read, walk
from eventstore.values import encode_value

_BATCH_FILES = 1_000
_BATCH_BYTES = 4 * 2**20


def import_tree(root: Path, store: Store, report: ImportReport, *, domain: str | None = None, progress: Progress | None = None) -> None:
    """Write every file that names a key and holds JSON, unless the key holds just that; the rest goes into the report.

    A domain's files are written in the order of their last changes: its log tells the story as it happened. Raises ContractError for a
    store that keeps the records of contracts, if these are their files.
    """
    files = _named(root, store, report, domain)
    require_paths(store, keys_by_domain(files))
    done = 0
    for name, group in groupby(files, key=lambda file: file.domain):
        try:
            for batch in _batches(_readable(root, group, store.max_value_bytes, report)):
                _write(raw_domain(store, name), batch, report)
                done += len(batch)
                if progress is not None:
                    progress("files", done, len(files))
        except (CorruptionError, ContractError) as error:
            report.problem(name, error)


def _named(root: Path, store: Store, report: ImportReport, domain: str | None) -> list[JsonFile]:
    files: list[JsonFile] = []
    for entry in walk(root, domain=domain, besides=Path(store.location)):
        if isinstance(entry, JsonFile):
            files.append(entry)
        elif isinstance(entry, Problem):
            report.problems.append(entry)
        elif entry == "temporary":
            report.temporary_files += 1
        else:
            report.other_files += 1
    return sorted(files, key=lambda file: (file.domain, file.modified_us, file.path))


def _readable(root: Path, files: Iterable[JsonFile], at_most: int, report: ImportReport) -> Iterator[tuple[JsonFile, msgspec.Raw]]:
    """The files that hold JSON, with their bytes. Proven here, before a domain is made or a batch begun for nothing."""
    for file in files:
        try:
            value = msgspec.Raw(read(root / file.path, at_most=at_most))
            encode_value(value, max_bytes=at_most)
        except OSError as error:
            report.problem(file.path, error.strerror or str(error))
        except InvalidValueError as error:
            report.problem(file.path, error)
        else:
            yield file, value


def _batches(files: Iterable[tuple[JsonFile, msgspec.Raw]]) -> Iterator[list[tuple[JsonFile, msgspec.Raw]]]:
    batch: list[tuple[JsonFile, msgspec.Raw]] = []
    size = 0
    for file, value in files:
        batch.append((file, value))
        size += len(bytes(value))
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(domain: DomainStore, files: list[tuple[JsonFile, msgspec.Raw]], report: ImportReport) -> None:
    with domain.batch() as batch:
        for file, value in files:
            batch.write_value(file.key, value, when=file.modified_us, unchanged="skip")
    written = sum(receipt.appended for receipt in batch.receipts)
    counts = report.of(domain.name)
    counts.written += written
    counts.unchanged += len(files) - written
