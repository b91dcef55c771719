"""The nouns: Event, Head, KeyState, Receipt, Domain. Frozen values, no I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from eventstore.errors import ConfigError, InvalidKeyError

Durability = Literal["memory", "process", "power", "power+"]
Status = Literal["present", "removed", "redacted"]
WriteRule = Literal["replace", "first"]

DURABILITIES: tuple[Durability, ...] = ("memory", "process", "power", "power+")
"""From the weakest to the strongest (RELIABILITY.md section 1)."""

MIN_FREE_BYTES = 64 * 2**20
"""Free space below which nothing is appended: on a disk that is full to the last block SQLite's mapped -shm kills the
process (SIGBUS), and what was acknowledged needs room for its checkpoint."""

Part = str | int
Key = str | tuple[Part, ...]
"""A key as callers see it: one string, or a tuple of strings and integers."""

SYSTEM_KEY = "[]"
"""The key of the log's own events: birth, loss, and those that later issues add."""

_DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def is_domain_name(name: object) -> bool:
    """Whether a domain may be called so: a name that is a folder's name everywhere, and leads nowhere else."""
    return isinstance(name, str) and _DOMAIN_NAME.fullmatch(name) is not None and ".." not in name


class Event(msgspec.Struct, frozen=True, gc=False):
    """One immutable fact, its fields in the order of the table's columns (FORMAT.md section 2)."""

    position: int
    prev: int
    recorded_us: int
    when_us: int | None
    op: str
    checksum: bytes
    key: str
    meta: str | None
    salt: bytes | None
    digest: bytes | None
    data: str | bytes | None


class Linked(msgspec.Struct, frozen=True, gc=False):
    """An event and what it is chained to: the checksum stored in the event before it, None where that one is not there.

    For the birth row `previous` is what the format puts before it.
    """

    previous: bytes | None
    event: Event


class Head(msgspec.Struct, frozen=True):
    """A position and the checksum found there: names one history, not just a place in it."""

    position: int
    checksum: bytes


class KeyState(msgspec.Struct, frozen=True, gc=False):
    """What a key is now. Its value lives in the cache, or in the log at `position`."""

    position: int
    when_us: int | None
    status: Status


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a write was given.

    `appended=False`: nothing new was written, but what stands at `position` is as durable as asked.
    """

    domain: str
    position: int
    checksum: bytes
    durability: Durability
    appended: bool


class HeldCopy(msgspec.Struct, frozen=True):
    """A place that may still hold a value that was erased, and what to do about it."""

    path: str
    advice: str


class Domain(msgspec.Struct, frozen=True):
    """A named log and the rule by which it may be written.

    write "replace": every write becomes the key's current value. "first": the first one stands, later
    ones append nothing. `value` is the type that reads return; Any gives plain data,
    msgspec.Raw the stored JSON text itself. codec "zlib": what is written here is stored compressed where that pays; it is
    read back as it was given, whoever opens the domain and however. `subject` tells of a key whose it is (None: nobody's): what is
    written here under it is encrypted with that subject's key, which Store.shred() destroys; eventstore.open(keys=...) says where keys are.
    """

    name: str
    write: WriteRule = "replace"
    value: Any = Any
    codec: Literal["zlib"] | None = None
    subject: Callable[[Key], str | None] | None = None

    def __post_init__(self) -> None:
        if not is_domain_name(self.name):
            raise InvalidKeyError(
                f"domain {self.name!r}: 1 to 64 of a-z 0-9 _ . - are allowed, starting with a letter or digit, without '..'"
            )
        if self.write not in ("replace", "first"):
            raise InvalidKeyError(f"domain {self.name!r}: write rule {self.write!r} is not 'replace' or 'first'")
        if self.codec not in (None, "zlib"):
            raise ConfigError(f"domain {self.name!r}: codec {self.codec!r} is not 'zlib', the only one that values can be stored with")


class Expected(enum.Enum):
    """What a write demands of its key before it may happen; a position is the fourth possibility."""

    ANY = "anything"
    ABSENT = "absent"
    PRESENT = "present"

    def __str__(self) -> str:
        return self.value


ANY, ABSENT, PRESENT = Expected.ANY, Expected.ABSENT, Expected.PRESENT
