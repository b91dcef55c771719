"""Canonical keys, and the hash chain: seal() makes an event, check() proves one (FORMAT.md sections 3 and 4)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from eventstore.errors import ChecksumError, FormatError, GapError, InvalidKeyError, NewerFormatError, StoreFormatError
from eventstore.model import SYSTEM_KEY, Event, Head, Key, Linked, WriteRule

FORMAT = 1
"""The format's number (FORMAT.md). Stores of the drafts before it, which say 0, are not opened; what they exported is imported."""

MAX_KEY_BYTES = 1_024
MAX_KEY_INT = 2**53
SALT_BYTES = 16

OPS = ("put", "remove", "open", "rules", "redact", "seal", "archive", "loss")
_OP_BYTES = {op: op.encode() for op in OPS}


def genesis(number: int) -> Head:
    """What stands before the birth row in a format: so c_0 = sha256(prefix || m_0) and c_n = sha256(c_n-1 || m_n) are one rule."""
    return Head(-1, b"eventstore/%d\x00" % number)


GENESIS = genesis(FORMAT)

_pack_header = struct.Struct(">QQQqBBHI").pack
_sha256 = hashlib.sha256
_NO_DATA = bytes(32)
_HAS_WHEN, _HAS_DATA, _HAS_META, _IS_BLOB = 1, 2, 4, 8

# Texts of keys met before. Keys with integers are left out: in Python ("x", 1) == ("x", True) == ("x", 1.0).
_texts: dict[Key, str] = {}
_TEXTS = 50_000

_encode_json = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_SYSTEM_BYTES = SYSTEM_KEY.encode()
_decode_key = msgspec.json.Decoder(list[str | int]).decode


class _MetaShape(msgspec.Struct):
    codec: str | msgspec.UnsetType = msgspec.UNSET


class _MetaFacts(_MetaShape):
    event_id: str | None = None


_decode_meta = msgspec.json.Decoder(_MetaShape).decode
_decode_facts = msgspec.json.Decoder(_MetaFacts).decode


def encode_key(key: Key) -> str:
    """The one text a key has: a JSON array without white space, shortest escapes, at most 1,024 bytes.

    A string, or a tuple (or list) of strings and integers within 2^53. Raises InvalidKeyError.
    """
    try:
        return _texts[key]
    except (KeyError, TypeError):
        pass
    text = _encoded(key)
    if type(key) is str or (type(key) is tuple and all(isinstance(part, str) for part in key)):
        if len(_texts) >= _TEXTS:
            _texts.clear()
        _texts[key] = text
    return text


def _encoded(key: Key) -> str:
    if isinstance(key, str):
        if not key:
            raise InvalidKeyError("a key of one empty string is not allowed; in a key of several parts a part may be empty")
        if "\0" in key:
            raise InvalidKeyError(f"key {key!r} holds NUL, the one character no key may hold")
        parts: list[Any] = [str.__str__(key)]
    else:
        parts = _checked_parts(key)
    try:
        encoded = _encode_json(parts)
    except UnicodeEncodeError:
        raise InvalidKeyError(f"key {key!r} holds a lone surrogate, which is no character") from None
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"key {str(key)[:40]!r}... takes {len(encoded)} bytes, at most {MAX_KEY_BYTES} are allowed; put the rest into the value"
        )
    return encoded.decode()


def encode_prefix(prefix: Key | None) -> str:
    """What the canonical text of every longer key starts with whose leading parts are `prefix`; None and () are all keys.

    A leading part may be the empty string. Raises InvalidKeyError.
    """
    if prefix is None or prefix == ():
        return "["
    parts = _checked_parts((prefix, "") if isinstance(prefix, str) else (*_as_parts(prefix), ""))
    try:
        opening = _encode_json(parts).decode()[:-3]  # without the empty last part and the bracket
        if len(opening.encode()) > MAX_KEY_BYTES:
            raise InvalidKeyError(f"a prefix of {len(opening.encode())} bytes; no key takes more than {MAX_KEY_BYTES}")
        return opening
    except UnicodeEncodeError:
        raise InvalidKeyError(f"prefix {prefix!r} holds a lone surrogate, which is no character") from None


def _as_parts(key: object) -> tuple[Any, ...]:
    if not isinstance(key, tuple | list):
        raise InvalidKeyError(f"a prefix is a string or a tuple of strings and integers, not {type(key).__name__} {key!r}")
    return tuple(key)


def _checked_parts(key: object) -> list[Any]:
    if not isinstance(key, tuple | list) or not key:
        raise InvalidKeyError(f"a key is a string or a tuple of strings and integers, not {type(key).__name__} {key!r}")
    for part in key:
        if isinstance(part, str):
            if "\0" in part:
                raise InvalidKeyError(f"key {key!r} holds NUL, the one character no key may hold")
        elif isinstance(part, bool) or not isinstance(part, int):
            # In Python ("x", True) == ("x", 1): as keys of a dict they would be one, in the log two.
            raise InvalidKeyError(f"key {key!r}: a part is a string or an integer, not {type(part).__name__}")
        elif not -MAX_KEY_INT <= part <= MAX_KEY_INT:
            raise InvalidKeyError(f"key {key!r}: the integer {part} is beyond 2^53; pass it as a string")
    if len(key) == 1 and key[0] == "":
        raise InvalidKeyError("a key of one empty string is not allowed; in a key of several parts a part may be empty")
    # Of a subclass (an enum, say) only what it is as a string or an integer counts.
    return [str.__str__(part) if isinstance(part, str) else int.__int__(part) for part in key]


def decode_key(text: str) -> Key:
    """A canonical key as callers see it: one string alone comes back as a string, everything else as a tuple.

    Raises InvalidKeyError for a text that is none.
    """
    try:
        parts = _decode_key(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, TypeError) as error:
        raise InvalidKeyError(f"{text!r} is not the text of a key: {error}") from error
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return tuple(parts)


def is_canonical(text: str) -> bool:
    """Whether `text` is exactly what encode_key() would give for the key it names."""
    try:
        return encode_key(tuple(_decode_key(text))) == text
    except (InvalidKeyError, msgspec.MsgspecError, UnicodeEncodeError):
        return False


def seal(
    previous: Head,
    *,
    prev: int,
    recorded_us: int,
    when_us: int | None,
    op: str,
    key: str,
    meta: str | None,
    data: str | bytes | None,
    salt: bytes | None,
) -> Event:
    """The event that follows `previous`, with its checksum.

    `salt` is 16 random bytes where there is data, else None; `prev` the position of the key's previous event;
    a blob needs `codec` in `meta`, text must not have it. Nothing is validated here: callers pass what they built.
    """
    return seal_at(previous.position + 1, previous.checksum, prev, recorded_us, when_us, op, key, meta, data, salt)


def seal_at(
    position: int,
    previous: bytes,
    prev: int,
    recorded_us: int,
    when_us: int | None,
    op: str,
    key: str,
    meta: str | None,
    data: str | bytes | None,
    salt: bytes | None,
) -> Event:
    """seal() by position and the checksum before it, without names: a batch of a thousand pays for each of them."""
    flags = 0
    if when_us is not None:
        flags = _HAS_WHEN
    meta_bytes = b""
    if meta is not None:
        flags |= _HAS_META
        meta_bytes = meta.encode()
    payload = _NO_DATA
    if data is not None and salt is not None:
        flags |= _HAS_DATA
        if isinstance(data, str):
            payload = _sha256(salt + data.encode()).digest()
        else:
            flags |= _IS_BLOB
            payload = _sha256(salt + data).digest()
    op_bytes, key_bytes = _OP_BYTES[op], key.encode()
    header = _pack_header(position, prev, recorded_us, when_us or 0, flags, len(op_bytes), len(key_bytes), len(meta_bytes))
    checksum = _sha256(previous + header + op_bytes + key_bytes + meta_bytes + payload).digest()
    return Event(position, prev, recorded_us, when_us, op, checksum, key, meta, salt, None, data)


def check(previous: Head, event: Event, domain: str) -> Head:
    """Prove that `event` follows `previous` and is what was sealed; gives its head.

    Raises GapError, FormatError, ChecksumError; `domain` is for their messages.
    """
    return check_all(previous, (event,), domain)


def check_all(previous: Head, events: Iterable[Event], domain: str) -> Head:
    """check() for events that follow each other; gives the head of the last one."""
    position, checksum = previous.position, previous.checksum
    for event in events:
        position += 1
        if event.position != position:
            raise GapError(domain, event.position, position)
        checksum = checksum_of(checksum, event, domain)
        if checksum != event.checksum:
            raise ChecksumError(domain, position, checksum, event.checksum)
    return Head(position, checksum)


Row = tuple[Any, ...]
"""A stored row as check_rows() takes it: position, prev, recorded_us, when_us, checksum, key, meta, salt and data; texts in UTF-8.

The last is None unless the row is a put of text, not redacted, with a salt of 16 bytes.
"""

_METAS = 10_000


class RowChain:
    """Where check_rows() has got to: the row before the next one, and what it has learned on the way."""

    __slots__ = ("checksum", "firsts", "ids", "ids_until", "latest", "position", "prevs", "recorded_us")

    def __init__(self, head: Head, recorded_us: int, ids_until: int) -> None:
        self.position, self.checksum, self.recorded_us = head.position, head.checksum, recorded_us
        self.latest: dict[bytes, int] = {}
        self.firsts: list[int] = []
        """Where each key of `latest` was seen first, and what it named as its previous event there."""
        self.prevs: list[int] = []
        self.ids_until = ids_until
        self.ids: dict[int, str] = {}
        """The event_ids of the events up to `ids_until`, by position."""


# Metas that passed and say neither codec nor event_id: the ones that repeat.
_plain_metas: set[bytes | None] = {None}


def check_rows(chain: RowChain, rows: Iterator[Row]) -> Row | None:
    """Prove rows that are what nearly all are: a put of JSON text that follows in position, checksum, time and prev.

    Moves `chain` along and gives the first row that is anything else, with `chain` at the row before it; None at the end.
    What such a row is, or what is wrong with it, is for checksum_of() and the rules to say.
    """
    before, position, recorded_us, latest = chain.checksum, chain.position, chain.recorded_us, chain.latest
    known, pack, sha256, decode_raw, metas = latest.get, _pack_header, _sha256, _decode_raw, _plain_metas
    row: Row | None = None
    try:
        for row in rows:
            at, prev, stamp_us, when_us, checksum, key, meta, salted = row
            if salted is None or at != position + 1 or stamp_us <= recorded_us:
                break
            if meta not in metas and not _is_plain(chain, at, meta):
                break
            data = salted[SALT_BYTES:]
            if not data.isascii():
                data.decode()
            decode_raw(data)
            last = known(key)
            if key == _SYSTEM_BYTES or (last != prev and (last is not None or not key.decode())):
                break
            flags = _HAS_DATA
            if when_us is None:
                when_us = 0
            else:
                flags = _HAS_DATA | _HAS_WHEN
            if meta is None:
                meta = b""
            else:
                flags |= _HAS_META
            header = pack(at, prev, stamp_us, when_us, flags, 3, len(key), len(meta))
            if sha256(b"".join((before, header, b"put", key, meta, sha256(salted).digest()))).digest() != checksum:
                break
            if last is None:
                chain.firsts.append(at)
                chain.prevs.append(prev)
            latest[key] = at
            before, position, recorded_us = checksum, at, stamp_us
        else:
            row = None
    except (TypeError, AttributeError, struct.error, UnicodeDecodeError, msgspec.MsgspecError):
        pass  # a NULL or a type where none should be, no UTF-8, no JSON: a row to look at
    chain.checksum, chain.position, chain.recorded_us = before, position, recorded_us
    return row


def _is_plain(chain: RowChain, position: int, meta: bytes) -> bool:
    """Whether `meta` is one of an event of text; takes note of its event_id."""
    facts = _decode_facts(meta)
    if facts.codec is not msgspec.UNSET:
        return False
    if not meta.isascii():
        meta.decode()
    if facts.event_id is not None:
        if position <= chain.ids_until:
            chain.ids[position] = facts.event_id
        return True
    if not msgspec.json.decode(meta):
        return False
    if len(_plain_metas) >= _METAS:
        _plain_metas.clear()
        _plain_metas.add(None)
    _plain_metas.add(meta)
    return True


def checksum_of(previous: bytes, event: Event, domain: str) -> bytes:
    """The checksum that `event` must carry after an event whose checksum is `previous`.

    Raises FormatError for what the format does not allow, before hashing (FORMAT.md section 4).
    """
    position, when_us, key, meta = event.position, event.when_us, event.key, event.meta
    data, salt = event.data, event.salt
    op_bytes = _OP_BYTES.get(event.op)
    if op_bytes is None:
        raise FormatError(domain, position, f"unknown op {event.op!r}")
    flags = 0
    if when_us is not None:
        flags = _HAS_WHEN
    meta_bytes, coded = b"", False
    try:
        if meta is not None:
            flags |= _HAS_META
            meta_bytes, coded = meta.encode(), _meta_names_codec(event, domain)
        if isinstance(data, str) and salt is not None and len(salt) == SALT_BYTES and event.digest is None and not coded:
            payload = _sha256(salt + data.encode()).digest()
        else:
            payload = _payload(event, coded, domain)
        if payload is not _NO_DATA:
            flags |= _HAS_DATA
        if coded:
            flags |= _IS_BLOB
        key_bytes = key.encode()
        header = _pack_header(position, event.prev, event.recorded_us, when_us or 0, flags, len(op_bytes), len(key_bytes), len(meta_bytes))
        # Damage to the schema may put anything in any column, in that of the checksum before, too.
        return _sha256(b"".join((previous, header, op_bytes, key_bytes, meta_bytes, payload))).digest()
    except (struct.error, UnicodeEncodeError, AttributeError, TypeError) as error:  # a text that damage made a blob has no encode()
        raise FormatError(domain, position, f"a field is outside what the format can hold: {error}") from error


def _payload(event: Event, coded: bool, domain: str) -> bytes:
    """D of FORMAT.md section 4: the digest of what is or was there, zeros where there never was anything."""
    data, salt, digest = event.data, event.salt, event.digest
    if data is None:
        if salt is not None:
            raise FormatError(domain, event.position, "a salt without data")
        if digest is None:
            return _NO_DATA
        if len(digest) != 32:
            raise FormatError(domain, event.position, f"a digest of {len(digest)} bytes instead of 32")
        return digest
    if digest is not None:
        raise FormatError(domain, event.position, "data beside a digest")
    if salt is None or len(salt) != SALT_BYTES:
        # Of a salt of any length a forger could move bytes into the data under a valid checksum.
        raise FormatError(domain, event.position, f"data without a salt of {SALT_BYTES} bytes")
    if isinstance(data, str):
        raise FormatError(domain, event.position, "text with meta.codec")
    if not isinstance(data, bytes):
        raise FormatError(domain, event.position, f"data of type {type(data).__name__}, which is neither text nor a blob")
    if not coded:
        raise FormatError(domain, event.position, "a blob without meta.codec")
    return _sha256(salt + data).digest()


def _meta_names_codec(event: Event, domain: str) -> bool:
    meta = event.meta or ""
    try:
        codec = _decode_meta(meta).codec
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise FormatError(domain, event.position, f"meta is not a JSON object: {error}") from error
    if codec is msgspec.UNSET:
        if not msgspec.json.decode(meta):
            raise FormatError(domain, event.position, "meta is an empty object; what says nothing is NULL")
        return False
    if not codec:
        raise FormatError(domain, event.position, "meta.codec is empty")
    return True


def check_linked(linked: Linked, domain: str) -> Head:
    """check() of an event that stands alone. Raises GapError where the event before it is not there."""
    event = linked.event
    if linked.previous is None:
        raise GapError(domain, event.position, event.position - 1)
    return check(Head(event.position - 1, linked.previous), event, domain)


class Birth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the birth row says: whose log this is, and by which rule it may be written."""

    format: int
    store_id: str
    domain: str
    created_us: int
    write: WriteRule


def seal_birth(birth: Birth, salt: bytes) -> Event:
    """Row 0 of a new log."""
    return seal_system(GENESIS, prev=0, recorded_us=birth.created_us, op="open", data=birth, salt=salt)


def seal_system(previous: Head, *, prev: int, recorded_us: int, op: str, data: Any, salt: bytes) -> Event:
    """An event of the log itself: key `[]`, `data` as JSON."""
    text = _encode_json(data).decode()
    return seal(previous, prev=prev, recorded_us=recorded_us, when_us=None, op=op, key=SYSTEM_KEY, meta=None, data=text, salt=salt)


def read_birth(event: Event | None, domain: str, number: int = FORMAT) -> Birth:
    """The content of row 0 of a log of format `number`, proven. Raises FormatError, ChecksumError."""
    if event is None:
        raise FormatError(domain, 0, "the birth row is missing")
    check(genesis(number), event, domain)
    if event.key != SYSTEM_KEY or event.op != "open" or not isinstance(event.data, str):
        raise FormatError(domain, 0, "the first row is not a birth row")
    try:
        birth = msgspec.json.decode(event.data, type=Birth)
    except msgspec.MsgspecError as error:
        raise FormatError(domain, 0, f"the birth row says nothing readable: {error}") from error
    if birth.format != number:
        raise FormatError(domain, 0, f"the birth row is of format {birth.format}, the file of format {number}")
    return birth


def other_format(path: str, found: int) -> StoreFormatError:
    """The error for a file that says another format than this version's."""
    if found > FORMAT:
        return NewerFormatError(path, f"format {found}, this version knows {FORMAT}; upgrade eventstore-kit")
    draft = f"made by a draft before format 1 (it says {found}), which is not opened any more"
    return StoreFormatError(path, f"{draft}: `eventstore export` it with the version that made it, then `eventstore import` that file here")


def erased(event: Event) -> Event:
    """`event` without its data: what a redaction leaves is the digest, and the checksum still holds."""
    if event.data is None or event.salt is None:
        return event
    data = event.data if isinstance(event.data, bytes) else event.data.encode()
    return msgspec.structs.replace(event, data=None, salt=None, digest=_sha256(event.salt + data).digest())
