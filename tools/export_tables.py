"""Events as a plain SQLite database for whoever asks questions: pandas, datasette, the shell of SQLite.

    event   one row an event, the log's own included (key []): times as text and in microseconds, members of the key and of
            the metadata in columns of their own, the value as JSON text
    state   one row a key that is there now: what its latest event says
    domain  one row a domain: its floor, the position up to which events are in no file at hand, as they were archived or deleted;
            of those only the latest of each key and the log's own are in the table `event`; 0 if all are

Only values are bound, never pasted into a statement; what is stored in them is text for the reader, whatever it looks like.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlite_utils import Database

from eventstore.clock import format_us
from eventstore.codec import decode_key
from eventstore.copies import require_outside
from eventstore.database import connect_copy, connect_reader, engine_error, sqlite3
from eventstore.domain import DomainStore
from eventstore.errors import ConfigError
from eventstore.files import FILE_MODE, half_made, os_errors, sync_file, sync_folder
from eventstore.model import SYSTEM_KEY, Event
from eventstore.tools.floor import chained, say_floor
from eventstore.tools.stores import chosen_domains, existing_domain, existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape

APPLICATION_ID = 0x45564B54
"""Of these databases, so that an older one is replaced, and nothing else ever is."""
_PARTS = 3
_BATCH = 1_000
_SAID = ("event_id", "actor", "reason", "correlation_id", "causation_id", "run_id", "type", "schema")

_KEY = {"key": str, **{f"key_{number}": str for number in range(1, _PARTS + 1)}}
_EVENT = {
    "domain": str,
    "position": int,
    "recorded_at": str,
    "when_at": str,
    "op": str,
    **_KEY,
    "value": str,
    "redacted": int,
    **dict.fromkeys(_SAID, str),
    "tags": str,
    "meta": str,
    "prev": int,
    "recorded_us": int,
    "when_us": int,
    "checksum": str,
}
_STATE = {"domain": str, **_KEY, "value": str, "redacted": int, "position": int, "recorded_at": str, "when_at": str, "actor": str}
_DOMAIN = {"domain": str, "floor": int, "head": int, "checksum": str}
_INDEXES = (["domain", "key", "position"], ["recorded_us"], ["when_us"], ["correlation_id"], ["run_id"], ["type"])
_LATEST = f"""INSERT INTO state SELECT {", ".join(_STATE)} FROM event
WHERE op = 'put' AND key <> '{SYSTEM_KEY}'
  AND NOT EXISTS (
    SELECT 1 FROM event AS later WHERE later.domain = event.domain AND later.key = event.key AND later.position > event.position)
ORDER BY domain, key"""


class TablesReport(msgspec.Struct, frozen=True):
    """How many events of which domain are in the table `event`, the log's own included; how many keys in `state`."""

    store: str
    database: str
    domains: dict[str, int]
    keys: int
    floors: dict[str, int]
    """Of which domains events up to a position are in no file at hand, and up to which."""

    exit_code = 0


def export_tables(
    location: str,
    domains: Iterable[str],
    path: Path,
    *,
    search: bool = False,
    read_only: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> TablesReport:
    """Make the database at `path` of `domains`, or of all there are; it appears whole, or not at all.

    `search` adds a full-text index, `event_fts`. Raises ConfigError for a path where something else is, CorruptionError where the
    chain breaks, CompactedError where a file is missing that was neither archived nor deleted.
    """
    target = Path(os.path.realpath(path))
    with os_errors(f"writing {path}"), existing_store(location, read_only=read_only, archives=archives) as store:
        require_outside(path)
        _require_free(target)
        chosen = [existing_domain(store, name) for name in domains] or chosen_domains(store, None)
        temporary = half_made(target)
        os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE))
        try:
            with contextlib.closing(connect_copy(temporary)) as connection:
                floors = {domain.name: _floor(domain) for domain in chosen}
                written, keys = _fill(Database(connection, execute_plugins=False), chosen, floors, search, progress)
            sync_file(temporary)
            temporary.rename(target)
        except sqlite3.Error as error:
            raise engine_error(error, domain="(all)", path=temporary, doing=f"writing {path}") from error
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(target.parent)
        return TablesReport(store.location, str(path), written, keys, {name: floor for name, floor in floors.items() if floor})


def _floor(domain: DomainStore) -> int:
    domain.head()  # catches up with others, who may have sealed and archived meanwhile
    return say_floor(domain)


def _require_free(target: Path) -> None:
    """Nothing is overwritten but an older database of ours."""
    if not os.path.lexists(target):
        return
    refusal = f"{target} is there already, and no earlier export; name a new file, or remove that one first"
    try:
        with contextlib.closing(connect_reader(target, busy_timeout_ms=0, immutable=True)) as there:
            found = there.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise ConfigError(refusal) from error
    if found != APPLICATION_ID:
        raise ConfigError(refusal)


def _fill(
    database: Database, domains: Iterable[DomainStore], floors: dict[str, int], search: bool, progress: Progress | None
) -> tuple[dict[str, int], int]:
    event = database.table("event").create(_EVENT, pk=("domain", "position"))
    state = database.table("state").create(_STATE, pk=("domain", "key"))
    database.table("domain").create(_DOMAIN, pk="domain")
    insert = f"INSERT INTO event VALUES ({', '.join('?' * len(_EVENT))})"
    written: dict[str, int] = {}
    database.execute("BEGIN")
    for domain in domains:
        head, floor = domain.head(), floors[domain.name]
        last = head.position
        database.execute("INSERT INTO domain VALUES (?, ?, ?, ?)", (domain.name, floor, last, head.checksum.hex()))
        rows: list[tuple[Any, ...]] = []
        written[domain.name] = 0
        for each in chained(domain, floor, last):
            rows.append(_row(domain.name, each.event))
            if len(rows) == _BATCH or each.event.position == last:
                database.conn.executemany(insert, rows)
                written[domain.name] += len(rows)
                rows = []
                if progress is not None:
                    progress(domain.name, each.event.position, last)
    database.execute("COMMIT")
    for columns in _INDEXES:
        event.create_index(columns)
    database.conn.execute(_LATEST)
    if search:
        event.enable_fts(["key", "value", "reason"])
    database.conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
    database.conn.execute("ANALYZE")
    return written, state.count


def _row(domain: str, event: Event) -> tuple[Any, ...]:
    key = decode_key(event.key)
    parts = [key] if isinstance(key, str) else [part if isinstance(part, str) else str(part) for part in key]
    said = _said(event.meta)
    return (
        domain,
        event.position,
        format_us(event.recorded_us),
        None if event.when_us is None else format_us(event.when_us),
        event.op,
        event.key,
        *[parts[at] if at < len(parts) else None for at in range(_PARTS)],
        event.data,
        int(event.digest is not None),
        *[_text(said.get(name)) for name in _SAID],
        _text(said.get("tags")),
        event.meta,
        event.prev,
        event.recorded_us,
        event.when_us,
        event.checksum.hex(),
    )


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _said(meta: str | None) -> dict[str, Any]:
    return {} if meta is None else _decode(meta)


def _text(given: Any) -> str | None:
    """A member of the metadata as a cell: text as it is, anything else as JSON."""
    return given if given is None or isinstance(given, str) else msgspec.json.encode(given).decode()


def render(report: TablesReport, paint: Paint) -> Iterator[str]:
    """One line: how much, and where to."""
    events = count_text(sum(report.domains.values()), "event")
    keys = count_text(report.keys, "key")
    domains = count_text(len(report.domains), "domain")
    yield f"{events} of {domains} in table event, {keys} in table state: {paint(escape(report.database), 'name')}"
