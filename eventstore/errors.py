"""Everything that can go wrong, and what to do about it.

    EventStoreError                     catch this to catch all of them
    │
    │   the call was wrong; nothing was written
    ├── InvalidValueError (ValueError)  not JSON, NaN, too deep, too large, would read back as something else
    ├── InvalidKeyError (ValueError)    a key no log can hold; also the name of a domain
    ├── NaiveTimeError (ValueError)     a datetime without a zone
    ├── ConfigError (ValueError)        an option, a URL or a platform that cannot be
    ├── ContractError (ValueError)      the rule of a domain was broken
    │
    │   the answer is no
    ├── NotFoundError (KeyError)        no such key, event or domain
    ├── RedactedError (KeyError)        the value was erased; that it was there remains
    ├── MissingKeyError                 the value is encrypted, and its key is not at hand
    ├── WrongExpectedError              the key is not in the state the write expected
    ├── DuplicateEventError             this event_id already belongs to another request
    ├── SettledError                    this effect is done, or has failed for certain: it must not be done again
    ├── UncertainError                  this effect was begun before, and nobody knows whether it happened
    ├── SignatureError                  an anchor is not signed by the key it should be signed by
    ├── CompactedError                  the event is in a sealed file that is not at hand: archived, or missing
    │   └── LostIdsError                so is the record of the event ids there: whether a call was made cannot be told
    ├── ConflictError                   the head has moved; only raw logs show it (retryable)
    ├── ClosedError                     the store was closed
    │
    │   the bytes are not what was written: never retried, never repaired silently
    ├── CorruptionError
    │   ├── ChecksumError               an event does not match its checksum
    │   ├── GapError                    a position is missing, doubled or out of order
    │   ├── FormatError                 bytes the format does not allow
    │   └── TailLostError               the log ends before the last event known to be durable
    │
    │   nothing is wrong with the bytes, but they are not ours to open
    ├── StoreFormatError
    │   ├── NotAStoreError              no store here, or a foreign file
    │   ├── NewerFormatError            written by a newer version of this library
    │   ├── OwnedError                  another live process acts under this owner's name
    │   └── BackupError                 a backup: to be read, or restored, never written
    │
    │   the machine refused; .outcome says whether the write may have happened
    └── EngineError
        ├── UnavailableError            somebody else holds the lock (retryable)
        ├── DiskFullError               no space left
        ├── ReadOnlyError               opened read-only, or read-only media
        ├── AccessError                 permissions, links, a path that is not what it should be
        ├── FencedError                 the files under the store were replaced or removed
        └── HaltedError                 an earlier failure stopped writing

Catch a class and read its attributes; never parse a message.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

Outcome = Literal["not_written", "unknown"]


class EventStoreError(Exception):
    """The root of every error this library raises on purpose."""

    retryable: ClassVar[bool] = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process pools; their constructors take other arguments than Exception's.
        return _revived, (type(self), self.args, self.__dict__.copy())


def _revived(kind: type[EventStoreError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EventStoreError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class InvalidValueError(EventStoreError, ValueError):
    """A value cannot be stored exactly as it is."""


class InvalidKeyError(EventStoreError, ValueError):
    """A key, or a domain's name, is outside what the format can hold (FORMAT.md section 3)."""


class NaiveTimeError(EventStoreError, ValueError):
    """A datetime without a zone names no moment."""


class ConfigError(EventStoreError, ValueError):
    """An option, a URL, an argument or a platform that cannot be."""


class ContractError(EventStoreError, ValueError):
    """The write rule of a domain was broken, or a domain was opened under another rule."""


class NotFoundError(EventStoreError, KeyError):
    """No such key, event or domain; or not the store that an anchor is of."""

    # KeyError shows the repr of its argument; a sentence should read as one.
    __str__ = Exception.__str__


class RedactedError(EventStoreError, KeyError):
    """The value was erased on purpose; the event that held it, and its digest, remain."""

    __str__ = Exception.__str__

    def __init__(self, domain: str, position: int) -> None:
        super().__init__(f"{domain}@{position}: the value was redacted; the log of its domain says who did it and why (`eventstore log`)")
        self.domain, self.position = domain, position


class MissingKeyError(EventStoreError):
    """The value is encrypted with a subject's key, and no key file at hand holds it; `key_id` is the key's."""

    def __init__(self, domain: str, position: int, key_id: str, keys: str | None) -> None:
        looked = "the store was opened without a key file" if keys is None else f"{keys} does not hold it"
        super().__init__(
            f"{domain}@{position}: the value is encrypted with key {key_id}, and {looked};"
            " open the store with keys=FILE, or EVENTSTORE_KEYS, the file that was there when it was written"
        )
        self.domain, self.position, self.key_id = domain, position, key_id


class WrongExpectedError(EventStoreError):
    """The key is not in the state the write expected; nothing was written.

    `expected` is what the caller asked for, `actual` the position of the key's current event,
    or None if the key is absent or removed.
    """

    def __init__(self, domain: str, key: str, expected: object, actual: int | None) -> None:
        found = "absent" if actual is None else f"at position {actual}"
        super().__init__(f"{domain} {key}: expected {expected}, found {found}; nothing was written: read the key again and decide anew")
        self.domain, self.key, self.expected, self.actual = domain, key, expected, actual


class DuplicateEventError(EventStoreError):
    """The event_id was already used in this domain, for another request."""

    def __init__(self, domain: str, event_id: str, position: int) -> None:
        super().__init__(
            f"{domain}@{position}: event_id {event_id!r} already belongs to another request;"
            " an event_id names one call for ever: use a new one for a new write"
        )
        self.domain, self.event_id, self.position = domain, event_id, position


class SignatureError(EventStoreError):
    """An anchor is not signed, not by the key that was expected, or was altered since: it was not believed."""


class SettledError(EventStoreError):
    """The effect under this event_id was settled before; it must not be done again, and nothing was written.

    `status` is "done", and `result` what was kept of the answer, or "failed", and `reason` says why it never happened.
    """

    def __init__(self, domain: str, event_id: str, position: int, status: str, *, result: Any = None, reason: str | None = None) -> None:
        told = "is done; its result is in `result`: do not do it again"
        if status == "failed":
            told = f"has failed for certain ({reason}); to try again, use a new event_id"
        super().__init__(f"{domain}@{position}: {event_id!r} {told}")
        self.domain, self.event_id, self.position, self.status, self.result, self.reason = (
            domain,
            event_id,
            position,
            status,
            result,
            reason,
        )


class UncertainError(EventStoreError):
    """The effect under this event_id was begun before, and whether it happened is not known; nothing was written.

    `pid` is the process that began it, `error` the exception that ended it ("Type: message"), None if there was none.
    """

    def __init__(self, domain: str, event_id: str, position: int, *, pid: int | None = None, error: str | None = None) -> None:
        begun = "begun" if pid is None else f"begun by process {pid}"
        ended = f", ended with {error}," if error else ""
        super().__init__(
            f"{domain}@{position}: {event_id!r} was {begun}{ended} and may have happened; make sure that nobody is"
            " still at it, enter it with resume=True, and ask the other side by this id, or do it again under this same id if the"
            " other side knows it then"
        )
        self.domain, self.event_id, self.position, self.pid, self.error = domain, event_id, position, pid, error


_PUT_BACK = "`eventstore verify` names the file; put it back from a backup or an archive while the store is closed"


class CompactedError(EventStoreError):
    """What was asked for stands in a sealed file that is not at hand. `floor`: what came after that position is there whole.

    `archive` is where the file was put, as the log says; None if it says nothing, and the file is missing, or if it was `deleted`.
    `what` cannot be had for that reason, if it is not the event itself. `damaged`: its file is at hand, and its row does not prove itself.
    """

    def __init__(
        self,
        domain: str,
        position: int,
        floor: int,
        archive: str | None = None,
        *,
        deleted: bool = False,
        damaged: bool = False,
        what: str = "not at hand",
    ) -> None:
        if damaged:
            where = f"its row is damaged, in a sealed file: {_PUT_BACK}"
        elif deleted:
            where = "its file was deleted for good, as the log says; what every key was at the floor is there"
        elif archive is not None:
            where = f"its file was archived to {archive}; attach it: open(..., archives=[...]), or --archive DIR"
        else:
            where = (
                "its file is missing, and no archive is known of; put it back, or attach the folder that has it: open(..., archives=[...])"
            )
        super().__init__(f"{domain}@{position}: {what}; {where}. Everything after position {floor} is there")
        self.domain, self.position, self.floor, self.archive, self.deleted = domain, position, floor, archive, deleted
        self.damaged = damaged


class LostIdsError(CompactedError):
    """Whether a call with an event_id was made before cannot be told: its record is lost, and the events are not at hand, or damaged.

    That is so of positions `first` to `last`, or, of damaged rows, of some of them; `archive` and `deleted` say where their events went,
    as in any CompactedError. Nothing was written; calls without an event_id are, and one whose id is found elsewhere is answered.
    """

    def __init__(
        self, domain: str, first: int, last: int, floor: int, archive: str | None = None, *, deleted: bool = False, damaged: bool = False
    ) -> None:
        super().__init__(domain, first, floor, archive, deleted=deleted, damaged=damaged)
        self.first, self.last = first, last
        if damaged:
            where = f"position {first}" if first == last else f"positions {first} to {last}"
            self.args = (
                f"{domain}: event ids at {where} cannot be told: rows there are damaged, in a sealed file, and no .ids file knows them. A"
                f" call whose event_id is found nowhere else is refused; writes without one go on. To have it back: {_PUT_BACK}; or accept"
                f" that what was written there may be written a second time by a retry: `eventstore accept STORE {domain}`",
            )
            return
        attach = "" if archive is None else f", or open the store once for writing with {archive} attached, which writes them again"
        self.args = (
            f"{domain}: the event ids of positions {first} to {last} are lost: their .ids files in the log's folder are gone or damaged,"
            " and their events are not at hand. Whether a call with an event_id was made there cannot be told, so it is refused; writes"
            f" without one go on. Put the .ids files back from a backup{attach}; or accept that what was written there may be written a"
            f" second time by a retry: `eventstore accept STORE {domain}`",
        )


class ConflictError(EventStoreError):
    """The head of the log is not the one the append was made for; nothing was written."""

    retryable = True

    def __init__(self, domain: str, expected: int, found: int) -> None:
        super().__init__(f"{domain}: append after position {expected}, but the head is {found}; catch up and try again")
        self.domain, self.expected, self.found = domain, expected, found


class ClosedError(EventStoreError):
    """The store was closed; open it again."""


class CorruptionError(EventStoreError):
    """The bytes are not what was written. `position` is None where no single event is meant."""

    def __init__(self, domain: str, position: int | None, message: str) -> None:
        where = domain if position is None else f"{domain}@{position}"
        super().__init__(f"{where}: {message}")
        self.domain, self.position = domain, position


class ChecksumError(CorruptionError):
    """An event does not match its checksum, or does not follow the event before it."""

    def __init__(self, domain: str, position: int, expected: bytes, found: bytes) -> None:
        super().__init__(
            domain,
            position,
            f"checksum {found.hex()}, expected {expected.hex()}: this event or the one before it was altered;"
            " run `eventstore verify`, then restore a backup, read what is intact with read_only, or carve it out: `eventstore salvage`",
        )
        self.expected, self.found = expected, found


class GapError(CorruptionError):
    """A position is missing, doubled or out of order."""

    def __init__(self, domain: str, position: int, expected: int) -> None:
        super().__init__(
            domain, position, f"position {expected} expected here: events are missing or out of order; run `eventstore verify`"
        )
        self.expected = expected


class FormatError(CorruptionError):
    """Bytes that the format does not allow, whatever their checksum says (FORMAT.md section 4)."""


class TailLostError(CorruptionError):
    """The log ends before, or differs at, the last event known to be durable.

    `witnessed` and `found` are the two heads' positions (`witnessed` is None if the witness itself is
    unreadable); `quarantine` is the folder the evidence was copied to, if any.
    """

    def __init__(self, domain: str, witnessed: int | None, found: int, detail: str, quarantine: str | None = None) -> None:
        evidence = f"; the files were copied to {quarantine}" if quarantine else ""
        super().__init__(
            domain,
            found,
            f"{detail}{evidence}. Restore a newer copy of the files, read what is here with read_only=True, carve what is intact out"
            f" of the damaged files (`eventstore salvage STORE OUT`), or accept the loss: `eventstore accept STORE {domain}`",
        )
        self.witnessed, self.found, self.quarantine = witnessed, found, quarantine


class StoreFormatError(EventStoreError):
    """Nothing is wrong with the bytes, but this library cannot open them; they were not touched."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class NotAStoreError(StoreFormatError):
    """There is no store here, or the file belongs to something else."""


class NewerFormatError(StoreFormatError):
    """The store was written in a format this version does not know."""


class OwnedError(StoreFormatError):
    """Another live process acts under this owner's name. `pid` and `since_us` (microseconds) say who, where that can be told."""

    def __init__(self, path: str, owner: str, pid: int | None, since_us: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        since = "" if since_us is None else f" since {datetime.fromtimestamp(since_us / 1_000_000, UTC).isoformat(timespec='seconds')}"
        super().__init__(path, f"owned by {who} as {owner!r}{since}; stop that one first, or open the store under another owner's name")
        self.owner, self.pid, self.since_us = owner, pid, since_us


class BackupError(StoreFormatError):
    """A backup was opened for writing: two stores of one id would go on from one moment, each with a truth of its own."""


class EngineError(EventStoreError):
    """The machine below the log refused.

    `outcome` is "not_written" if the write certainly did not happen, "unknown" if it may have:
    then retry with the same `event_id`, which is exact. The driver's error is in `__cause__`.
    """

    def __init__(self, message: str, *, outcome: Outcome = "not_written", event_id: str | None = None) -> None:
        super().__init__(message)
        self.outcome: Outcome = outcome
        self.event_id = event_id


class UnavailableError(EngineError):
    """Somebody else holds the lock. `holder` is the pid that does, where the system tells."""

    retryable = True

    def __init__(self, message: str, *, holder: int | None = None, event_id: str | None = None) -> None:
        super().__init__(message, event_id=event_id)
        self.holder = holder


class DiskFullError(EngineError):
    """No space left on the device, or a quota or file size limit was reached."""


class ReadOnlyError(EngineError):
    """The store was opened read-only, or lies on read-only media."""


class AccessError(EngineError):
    """The system denies access to a path, or the path is not what it should be."""


class FencedError(EngineError):
    """The files under the open store were replaced or removed."""


class HaltedError(EngineError):
    """An earlier failure stopped writing, so that nothing is acknowledged that might not last."""
