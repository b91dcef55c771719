"""A tree of the framework's JSON files into a store, record by record: keys as the contracts have them, values verbatim.

Whose a record is follows from its path where that can be read in one way only, else from what the record itself says of symbol,
strategy and exchange, and before both from a file `.context` in its folder. What is left is listed, and never guessed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Container, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.contracts import CONTRACTS, Contract, camel, key_of
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.json_files import text_of
from eventstore.adapters.json_layout import CLAIM, Layout
from eventstore.adapters.shapes import members_of, step_of
from eventstore.adapters.shelf import Parts
from eventstore.codec import encode_key
from eventstore.domain import DomainStore
from eventstore.errors import ContractError, CorruptionError, InvalidKeyError, InvalidValueError, RedactedError
from eventstore.model import Domain
from eventstore.projections.series import FIELDS, MAX_MOMENT, MEMBERS, Candles, Series
from eventstore.store import Store
from eventstore.tools.contract_tree import fold_candles, require_records
from eventstore.tools.imported import Imported, ImportReport, Problem
from eventstore.tools.terminal import Progress
from eventstore.tools.tree import LINK_OUT, SUFFIX, Stamp, files, ignored, leads_out, read
from eventstore.tools.tree import Parts as Path_
from eventstore.values import decode_value, encode_value

_BATCH = 1_000
_TOLD = 4
"""Contexts that an error names where a path has more."""
_EVIDENCE = ("symbol", "strategy_name", "exchange_name")
"""The parts of a context that a record may say of itself; the frame is none, as live rows name one that their path does not have."""

Candle = dict[str, Any]

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _Place(msgspec.Struct, frozen=True):
    """A document of a contract, as far as its path says."""

    path: str
    contract: Contract
    parts: Path_
    stamp: Stamp


class _Record(msgspec.Struct, frozen=True):
    """A record that was read: whose it is, and its JSON text."""

    path: str
    key: Parts
    text: msgspec.Raw


def import_contracts(root: Path, store: Store, report: ImportReport, *, progress: Progress | None = None) -> None:
    """Write every record below `root` that the store does not have just so; the rest goes into the report. Nothing in `root` is touched.

    A contract's records are written in the order of their files' last changes. They get no `when`: a file has none. Raises ContractError
    for a store whose keys are paths.
    """
    require_records(store)
    places = _places(root, store, report)
    done = 0
    for name, group in groupby(places, key=lambda place: place.contract.name):
        reader, writer = _Reader(root, store.max_value_bytes, report), _Writer(store, CONTRACTS[name], report)
        try:
            for batch in _batches(record for place in group for record in reader.records(place)):
                writer.write(batch)
                done += len(batch)
                if progress is not None:
                    progress("files", done, len(places))
        except (CorruptionError, ContractError) as error:
            report.problem(CONTRACTS[name].domain.name, error)


def _places(root: Path, store: Store, report: ImportReport) -> list[_Place]:
    found: list[_Place] = []
    layouts = [(contract, Layout(root, contract)) for contract in CONTRACTS.values()]
    for entry in files(root, besides=Path(store.location)):
        if isinstance(entry, Problem):
            report.problems.append(entry)
            continue
        (*folders, name), stamp = entry
        why = ignored(name)
        if why == "temporary":
            report.temporary_files += 1
        elif why is not None:
            report.other_files += name != CLAIM
        else:
            path, parts = os.path.join(*folders, name), (*folders, name.removesuffix(SUFFIX))
            contract = next((each for each, layout in layouts if layout.keys(parts) or _is_list(layout, each, parts)), None)
            if contract is None:
                report.problem(path, "no contract keeps a document there")
            else:
                found.append(_Place(path, contract, parts, stamp))
    return sorted(found, key=lambda place: (place.contract.name, place.stamp.modified_ns, place.path))


def _is_list(layout: Layout, contract: Contract, parts: Path_) -> bool:
    return contract.shape == "rows" and bool(layout.contexts(parts))


def _batches(records: Iterator[_Record]) -> Iterator[list[_Record]]:
    batch: list[_Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(bytes(record.text))
        if len(batch) == _BATCH or size >= 4 * 2**20:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# ---- reading


class _Reader:
    """Documents of one contract, each read once: whose they are, and what they hold. What is wrong with one goes into the report."""

    def __init__(self, root: Path, at_most: int, report: ImportReport) -> None:
        self._root, self._at_most, self._report = root, at_most, report
        self._taken: dict[Parts, str] = {}

    def records(self, place: _Place) -> Iterator[_Record]:
        """The records of a document: one, or those of a list of rows."""
        try:
            text = msgspec.Raw(read(self._root / place.path, at_most=self._at_most))
            encode_value(text, max_bytes=self._at_most)
            found = list(self._told(place, text))
            for record in found:
                encode_key(record.key)  # a name that is no text is no key
        except OSError as error:
            self._report.problem(place.path, error.strerror or str(error))
        except (InvalidKeyError, InvalidValueError, ContractError) as error:
            self._report.problem(place.path, error)
        else:
            yield from (record for record in found if self._is_first(record))

    def _is_first(self, record: _Record) -> bool:
        first = self._taken.setdefault(record.key, record.path)
        if first != record.path:
            self._report.problem(record.path, f"{first} holds the same record, {encode_key(record.key)}; that one was taken")
        return first == record.path

    def _told(self, place: _Place, text: msgspec.Raw) -> Iterator[_Record]:
        value = decode_value(text_of(text))
        layout = Layout(self._root, place.contract)
        if not layout.keys(place.parts):
            (context,) = layout.contexts(place.parts)
            rows = value if isinstance(value, list) else [value]
            ids = [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
            if rows is not value or len(set(ids)) < len(rows):
                raise ContractError("a list of rows each of which has an id of its own is expected there, and this is none")
            yield from (_Record(place.path, (*context, id_), row) for id_, row in zip(ids, _decode_list(text), strict=True))
            return
        key = self._key(place, layout, value)
        if place.contract.shape == "series":
            moment = _candle(place.contract, text)["timestamp"]
            if moment != key[-1]:
                raise ContractError(f"its name says {key[-1]}, and the candle {moment}")
            if moment + step_of(place.contract, key) > time.time_ns() // 1_000_000:
                raise ContractError("the candle is not closed yet, and may still change")
        yield _Record(place.path, key, text)

    def _key(self, place: _Place, layout: Layout, value: Any) -> Parts:
        """Whose a document is. Raises ContractError where that cannot be told."""
        keys = layout.keys(place.parts)
        count = len(place.contract.context)
        claim = self._claim(place, layout)
        if claim is not None:
            claimed = _decoded(claim)
            named = [key for key in keys if list(key[:count]) == claimed]
            if not named:
                holds = claim.decode(errors="backslashreplace").strip()
                raise ContractError(f"{_claim_of(place)} holds {holds[:200]!r}; {_advice(place, keys)}")
            return named[0]
        # A frame where the engine has none, or none where it has one, is what a file .context says, or nothing else can be.
        keys = [key for key in keys if not layout.is_odd(key[:count])] or keys
        said = _said(place.contract, value)
        fitting = keys if len(keys) == 1 else [key for key in keys if _agrees(place.contract, key, said)]
        if len(fitting) == 1:
            return fitting[0]
        told = f"says {json.dumps(said)}, which is none of these" if said and not fitting else "does not say which"
        raise ContractError(f"this is the path of several contexts, and the record {told}; {_advice(place, fitting or keys)}")

    def _claim(self, place: _Place, layout: Layout) -> bytes | None:
        """What the folder says of whose it is, None if it says nothing. Raises OSError."""
        if not layout.is_joined:
            return None
        try:
            if leads_out(self._root, _claim_of(place)):
                raise OSError(f"whose it is, {_claim_of(place)} says: {LINK_OUT}")
            return read(self._root / _claim_of(place), at_most=2**16)
        except FileNotFoundError:
            return None


def _claim_of(place: _Place) -> str:
    return os.path.join(os.path.dirname(place.path), CLAIM)


def _decoded(claim: bytes) -> Any:
    """The list that a file .context holds; None where it holds no JSON."""
    try:
        return json.loads(claim)
    except (ValueError, RecursionError):
        return None


def _advice(place: _Place, keys: Sequence[Parts]) -> str:
    """What to write into the file .context, and where that is."""
    contexts = [json.dumps(context, ensure_ascii=False) for context in dict.fromkeys(key[: len(place.contract.context)] for key in keys)]
    more = f" or {len(contexts) - _TOLD} more" if len(contexts) > _TOLD else ""
    return (
        f"write into the file {_claim_of(place)} whose it is, just so: {' or '.join(contexts[:_TOLD])}{more}"
        f" ({', '.join(place.contract.context)}); that counts for all documents of its folder"
    )


def _said(contract: Contract, value: Any) -> dict[str, str]:
    """What a record says of whose it is: in itself, or the same in all objects that it holds."""
    said = {}
    for name in _EVIDENCE:
        if name in contract.context:
            own = value.get(camel(name)) if isinstance(value, dict) else None
            found = {own} if isinstance(own, str) else set(_inside(camel(name), value, 3))
            if len(found) == 1:
                said[name] = found.pop()
    return said


def _inside(name: str, value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict) and isinstance(value.get(name), str):
        yield value[name]
    elif depth and isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _inside(name, member, depth - 1)


def _agrees(contract: Contract, key: Parts, said: dict[str, str]) -> bool:
    return all(said.get(name, part) == part for name, part in zip(contract.context, key, strict=False))


def _candle(contract: Contract, text: msgspec.Raw) -> Candle:
    """A candle as it is kept. Its numbers are doubles, whatever digits say them. Raises ContractError."""
    value = decode_value(text_of(text))
    for name, number in value.items() if isinstance(value, dict) else ():
        if name in FIELDS and type(number) is int and MAX_MOMENT < abs(number) < sys.float_info.max:
            value[name] = float(number)
    return dict(zip(MEMBERS, members_of(contract, [value])[0], strict=True))


# ---- writing


class _Writer:
    """Writes the records of one contract that the store does not have."""

    def __init__(self, store: Store, contract: Contract, report: ImportReport) -> None:
        self._store, self._contract, self._report = store, contract, report
        self._candles, self._backend = Candles(), EventBackend(lambda: store)

    def write(self, records: Sequence[_Record]) -> None:
        """Write a batch. Raises ContractError for a domain of another rule, EngineError."""
        domain = self._store.domain(Domain(self._contract.domain.name, self._contract.write, msgspec.Raw))
        counts = self._report.of(domain.name)
        if self._contract.shape == "series":
            self._write_candles(domain, records, counts)
            return
        with domain.batch() as batch:
            for record in records:
                if self._is_new(domain, record, counts):
                    batch.write_value(key_of(record.key), record.text, unchanged="skip")
        counts.written += sum(receipt.appended for receipt in batch.receipts)
        counts.unchanged += sum(not receipt.appended for receipt in batch.receipts)

    def _is_new(self, domain: DomainStore, record: _Record, counts: Imported) -> bool:
        key = key_of(record.key)
        try:
            standing = domain.get(key)
        except RedactedError:
            self._report.problem(record.path, f"{encode_key(key)} was erased in the store, and an import does not bring it back")
            return False
        if standing is None:
            return True
        if bytes(standing) == bytes(record.text):
            counts.unchanged += 1
        elif self._contract.write == "first":
            self._report.problem(record.path, f"{encode_key(key)} is in the store with another value, and there the first one stands")
        else:
            return True
        return False

    def _write_candles(self, domain: DomainStore, records: Sequence[_Record], counts: Imported) -> None:
        """Candles are numbers, in columns: an event for those of a context that are new."""
        fold_candles(domain, self._candles, domain.head().position)
        for context, group in groupby(sorted(records, key=lambda record: record.key), key=lambda record: record.key[:-1]):
            series = self._candles.of(context)
            given = [(record, _candle(self._contract, record.text)) for record in group]
            new = {candle["timestamp"]: candle for _, candle in given if candle["timestamp"] not in series}
            if new:
                asyncio.run(self._add(context, list(new.values())))
                fold_candles(domain, self._candles, domain.head().position)
            self._count(self._candles.of(context), given, new, counts)

    def _count(self, series: Series, given: Sequence[tuple[_Record, Candle]], new: Container[int], counts: Imported) -> None:
        """What became of candles, by what stands there now."""
        for record, candle in given:
            standing = series.read(candle["timestamp"], 1, 1)
            if standing is None:
                self._report.problem(record.path, "an event under its key was erased in the store, and an import does not bring it back")
            elif standing != [candle]:
                self._report.problem(record.path, "the store has another candle of that moment, and there the first one stands")
            elif candle["timestamp"] in new:
                counts.written += 1
            else:
                counts.unchanged += 1

    async def _add(self, context: Parts, candles: Sequence[Candle]) -> None:
        await (await self._backend.shelf(self._contract)).add_candles(context, candles)
