"""The records of contracts as a tree of the framework's own JSON files: values verbatim, candles as the framework spells numbers."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.contracts import Contract, key_of
from eventstore.adapters.json_files import JsonFiles, text_of
from eventstore.adapters.json_layout import Layout
from eventstore.adapters.shelf import Parts
from eventstore.codec import decode_key, encode_key
from eventstore.copies import require_outside
from eventstore.domain import DomainStore
from eventstore.errors import AccessError, CompactedError, ConfigError, ContractError
from eventstore.files import os_errors, sync_folder, working_folder
from eventstore.model import SYSTEM_KEY, Event, KeyState
from eventstore.projections.key_states import natural_order
from eventstore.projections.series import Candles
from eventstore.tools.contract_tree import BY_DOMAIN, fold_candles, is_record, parts_of, require_records, text_or_none
from eventstore.tools.imported import Problem
from eventstore.tools.stores import existing_domain, existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, table
from eventstore.values import decode_value
from eventstore.view import cut_at

_BATCH = 1_000

Record = tuple[Parts, str]


class Exported(msgspec.Struct):
    """What came of one domain, as of a position."""

    position: int
    files: int = 0
    erased: int = 0
    """Records whose value was redacted: there is nothing to write."""


class TreeReport(msgspec.Struct):
    """What came of a store."""

    store: str
    output: str
    domains: dict[str, Exported] = {}
    passed_over: list[str] = []
    """Domains that belong to no contract."""
    problems: list[Problem] = []

    @property
    def exit_code(self) -> int:
        """1 if a record has no file."""
        return int(bool(self.problems))


def export_contracts(
    location: str,
    domains: Iterable[str],
    to: Path,
    *,
    read_only: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> TreeReport:
    """Write `domains`, or those of all contracts, as files below `to`, a folder that is missing or empty; it appears whole, or not at all.

    Each domain is written as of one position, which the report names; others may write meanwhile. What no file can hold goes into
    the report. Raises ConfigError for a place or a domain that cannot be, ContractError for a store whose keys are paths, CorruptionError.
    """
    target = Path(os.path.realpath(to))
    require_outside(to)
    with os_errors(f"writing {to}"), existing_store(location, read_only=read_only, archives=archives) as store:
        _require_free(target)
        require_records(store)
        report = TreeReport(store.location, str(to))
        named = list(domains)
        for name in named:
            existing_domain(store, name)
            if name not in BY_DOMAIN:
                raise ConfigError(f"{name} is no contract's domain; those are {', '.join(sorted(BY_DOMAIN))}")
        report.passed_over = [] if named else [name for name in store.domains() if name not in BY_DOMAIN]
        with working_folder(target, "tree") as folder:
            root = folder / "tree"
            root.mkdir()
            for name in named or [name for name in store.domains() if name in BY_DOMAIN]:
                _export(existing_domain(store, name), BY_DOMAIN[name], root, report, progress)
            sync_folder(root)
            root.rename(target)
            sync_folder(target.parent)
        return report


def _require_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: a tree is made in a folder that is missing or empty, as files are never replaced")


def _export(domain: DomainStore, contract: Contract, root: Path, report: TreeReport, progress: Progress | None) -> None:
    states = cut_at(domain.group.live.log, domain.group.live.pointers, None)
    counts = report.domains[domain.name] = Exported(states.position)
    if contract.shape == "series":
        candles = fold_candles(domain, Candles(), states.position)
        contexts = [context for context in candles.contexts() if is_record(contract, (*context, 0))]
        records, total = _candles(candles, contexts), sum(len(candles.of(context)) for context in contexts)
        counts.erased = sum(state.status == "redacted" for state in states.snapshot().values())
        report.problems += [_odd(domain, contract, key) for key in states.snapshot() if _is_odd(contract, key)]
    else:
        found = sorted(states.snapshot().items(), key=lambda item: natural_order(item[0]))
        records, total = _records(domain, contract, found, counts, report), len(found)
    files = _Files(root, contract, report)
    while batch := list(islice(records, _BATCH)):
        counts.files += files.write(batch)
        if progress is not None:
            progress(domain.name, counts.files, total)


def _is_odd(contract: Contract, key: str) -> bool:
    return key != SYSTEM_KEY and not is_record(contract, parts_of(decode_key(key)))


def _odd(domain: DomainStore, contract: Contract, key: str) -> Problem:
    return Problem(f"{domain.name} {key}", f"no record of {contract.name}: its key has other parts")


def _candles(candles: Candles, contexts: Iterable[Parts]) -> Iterator[Record]:
    for context in contexts:
        for candle in candles.of(context):
            yield (*context, candle["timestamp"]), "{" + ",".join(f'"{name}":{number_text(value)}' for name, value in candle.items()) + "}"


def _records(
    domain: DomainStore, contract: Contract, found: Iterable[tuple[str, KeyState]], counts: Exported, report: TreeReport
) -> Iterator[Record]:
    for key, state in found:
        if key == SYSTEM_KEY or (state.status == "removed" and not contract.soft):
            continue
        if _is_odd(contract, key):
            report.problems.append(_odd(domain, contract, key))
        elif state.status == "redacted":
            counts.erased += 1
        else:
            event = domain.event(state.position)
            text = _removed(domain, event) if state.status == "removed" else text_or_none(domain, event)
            if text is None:
                counts.erased += 1  # while this was under way
            else:
                yield parts_of(decode_key(key)), text


def _removed(domain: DomainStore, removal: Event) -> str:
    """What the framework leaves of a record that was removed: the record, saying so; nothing else of it where that is not at hand."""
    try:
        text = text_or_none(domain, domain.event(removal.prev)) if removal.prev else None
    except CompactedError:
        text = None
    value: Any = decode_value(text) if text is not None else None
    return text_of({**(value if isinstance(value, dict) else {}), "removed": True})


class _Files:
    """The files of one contract in the tree that is being made."""

    def __init__(self, root: Path, contract: Contract, report: TreeReport) -> None:
        self._root, self._contract, self._report = root, contract, report
        self._files, self._layout = JsonFiles(root, contract), Layout(root, contract)

    def write(self, records: Sequence[Record]) -> int:
        """Write those that can be; how many."""
        try:
            if self._are_apart([self._layout.path(key) for key, _ in records]):
                self._files.write_rows(records)
                return len(records)
        except (ContractError, AccessError):
            pass  # one of them cannot be; which one is found out one by one
        return sum(self._write_one(record) for record in records)

    def _are_apart(self, paths: Sequence[Path]) -> bool:
        """Whether no file is there, and no file system would take two of these names for one."""
        folded = {unicodedata.normalize("NFC", str(path)).casefold() for path in paths}
        return len(folded) == len(paths) and not any(path.exists() for path in paths)

    def _write_one(self, record: Record) -> bool:
        key, text = record
        try:
            path = self._layout.path(key)
            if path.exists():
                same = path.read_bytes() == text.encode() and path.name in os.listdir(path.parent)
                if not same:
                    raise ContractError(f"{path} is another record's file already, on a file system that does not tell their names apart")
            else:
                self._files.write(key, text)
        except (ContractError, AccessError) as error:
            message = str(error).replace(f"{self._root}{os.sep}", "")
            self._report.problems.append(Problem(f"{self._contract.domain.name} {encode_key(key_of(key))}", message))
            return False
        return True


def number_text(value: float) -> str:
    """A number as the framework's JSON.stringify spells it: 100 and not 100.0, 1e+21, 0.000001, 1e-7."""
    if not value:
        return "0"
    text = repr(float(value))
    number = Decimal(text)
    if not -7 < number.adjusted() < 21:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}e{int(exponent):+d}"
    fixed = format(number, "f")
    return fixed.rstrip("0").rstrip(".") if "." in fixed else fixed


def render(report: TreeReport, paint: Paint) -> Iterator[str]:
    """What has no file, a line a domain, and the sum."""
    for problem in report.problems:
        yield f"{paint('left out', 'bad')}  {escape(problem.where)}: {escape(problem.message)}"
    if report.passed_over:
        yield paint(f"passed over {', '.join(report.passed_over)}: no contract's", "dim")
    yield from table([name, *_counts(found)] for name, found in report.domains.items())
    files = count_text(sum(found.files for found in report.domains.values()), "file")
    verdict = f"{files} in {escape(report.output)}"
    if report.problems:
        yield paint(f"{verdict}; {count_text(len(report.problems), 'record')} left out, named above", "warn")
    else:
        yield paint(verdict, "ok")


def _counts(found: Exported) -> Sequence[str]:
    erased = f", {count_text(found.erased, 'redacted value')}" if found.erased else ""
    return [f"as of position {found.position:,}", f"{count_text(found.files, 'file')}{erased}"]
