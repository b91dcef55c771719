"""How a value's text is stored: as it is, or as a blob whose meta.codec says how the text is had back (FORMAT.md section 13)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from eventstore.codec import decode_key
from eventstore.errors import ConfigError, CorruptionError, EngineError, FormatError, MissingKeyError, RedactedError, UnavailableError
from eventstore.model import Domain, Event
from eventstore.values import MAX_VALUE_BYTES

SMALLEST = 1_024
"""Bytes of a text below which compressing it is not worth a codec in its event's meta."""

ZLIB, AES_GCM = "zlib", "aes-gcm"

_encode = msgspec.json.Encoder().encode


class _Meta(msgspec.Struct):
    codec: str = ""


_decode_meta = msgspec.json.Decoder(_Meta).decode


class Cipher(Protocol):
    """Encrypts under the keys of subjects; adapters/keyring.py is one. `bound` is what a ciphertext cannot be moved away from."""

    def encrypt(self, subject: str, plain: bytes, bound: bytes) -> tuple[str, bytes]:
        """The id of the subject's key, and the ciphertext."""
        ...

    def lives(self, key_id: str) -> bool:
        """Whether a key is there, and not destroyed. Asked under the lock of a log, for every value that is encrypted: cheap."""
        ...

    def decrypt(self, key_id: str, blob: bytes, bound: bytes) -> bytes | None:
        """The plain bytes, None if the key was destroyed. Raises KeyError for an unknown key, ValueError for what it did not encrypt."""
        ...

    def shred(self, subject: str, *, reason: str, actor: str | None) -> list[str]:
        """Destroy the subject's keys, durably; the ids of all it ever had. Raises NotFoundError if it had none."""
        ...

    def after_fork(self) -> None:
        """In a forked child: another thread may have held a lock when the process split."""
        ...

    @property
    def path(self) -> object:
        """Where the keys are."""
        ...


class Blob(msgspec.Struct, frozen=True):
    """What is stored in the place of a text."""

    codec: str
    """How the text is had back."""
    content: bytes
    key_id: str | None = None
    """The key that it is encrypted with."""
    again: Callable[[], Blob] | None = None
    """Encrypts the same anew, with the key that its subject has by then."""


def require_subject(subject: object) -> None:
    """Raise ConfigError for what names nobody."""
    if not isinstance(subject, str) or not subject:
        raise ConfigError(f"a subject is a string that is not empty, not {subject!r}")


class Coding:
    """What one store needs to turn texts into blobs, and blobs into texts."""

    def __init__(self, store_id: str = "", *, max_value_bytes: int = MAX_VALUE_BYTES, cipher: Cipher | None = None) -> None:
        self.cipher = cipher
        self._store_id, self._max_value_bytes = store_id, max_value_bytes

    def encode(self, domain: Domain, key: str, text: str) -> Blob | None:
        """The blob for a value of `key`, a canonical one; None where the text is stored as it is."""
        names: list[str] = []
        content = text.encode()
        if domain.codec == ZLIB and len(content) >= SMALLEST:
            compressed = zlib.compress(content)
            if len(compressed) < len(content):
                names, content = [ZLIB], compressed
        subject = domain.subject(decode_key(key)) if domain.subject is not None else None
        if subject is not None:
            bound = self._bound(domain.name, key, names)
            return _encrypted(self._cipher(domain, subject), subject, names, content, bound)
        return Blob("+".join(names), content) if names else None

    def is_quick(self, domain: Domain, text: str) -> bool:
        """Whether encode() has hardly anything to do: not where it compresses, encrypts, or may have to make a key, durably."""
        return domain.subject is None and (domain.codec is None or len(text) < SMALLEST)

    def living(self, blob: Blob) -> Blob:
        """`blob`, encrypted anew if its key was destroyed since: nobody could ever read what is committed as it is.

        Call it under the lock of the log that it goes into. Who destroys the key after that finds it there, and erases it. Raises
        UnavailableError, as this is no failure of the log.
        """
        if self.cipher is None or blob.key_id is None or blob.again is None:
            return blob
        try:
            return blob if self.cipher.lives(blob.key_id) else blob.again()
        except (EngineError, CorruptionError) as error:
            raise UnavailableError(f"{error}; the value was not encrypted and nothing was written; try again") from error

    def _cipher(self, domain: Domain, subject: object) -> Cipher:
        require_subject(subject)
        if self.cipher is None:
            raise ConfigError(f"{domain.name}: values of subjects are encrypted, and the store was opened without their keys: keys=FILE")
        return self.cipher

    def _bound(self, domain: str, key: str, names: list[str]) -> bytes:
        """What a ciphertext belongs to: moved to another store, domain or key, or read in another way, it opens no more."""
        return _encode(["eventstore", AES_GCM, self._store_id, domain, key, names])

    def text_of(self, domain: str, event: Event) -> str | None:
        """The JSON text that an event holds; None for a removal. Raises RedactedError, FormatError for a blob that is not what it says."""
        data = event.data
        if isinstance(data, str):
            return data
        if data is None:
            if event.digest is not None:
                raise RedactedError(domain, event.position)
            return None
        names = codecs_of(event)
        while names:
            data = self._undone(names.pop(), names, data, domain, event)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise FormatError(domain, event.position, f"the blob holds no UTF-8 ({error}); run `eventstore verify`") from error

    def _undone(self, name: str, before: list[str], content: bytes, domain: str, event: Event) -> bytes:
        if name == ZLIB:
            return inflated(content, domain, event.position, self._max_value_bytes)
        kind, _, key_id = name.partition(":")
        if kind == AES_GCM and key_id:
            return self._decrypted(key_id, before, content, domain, event)
        raise FormatError(domain, event.position, f"the value is stored with the codec {name!r}, which this version does not know")

    def _decrypted(self, key_id: str, before: list[str], content: bytes, domain: str, event: Event) -> bytes:
        if self.cipher is None:
            raise MissingKeyError(domain, event.position, key_id, None)
        try:
            plain = self.cipher.decrypt(key_id, content, self._bound(domain, event.key, before))
        except KeyError:
            raise MissingKeyError(domain, event.position, key_id, str(self.cipher.path)) from None
        except ValueError as error:
            raise FormatError(domain, event.position, f"the ciphertext does not open with key {key_id}: {error}") from error
        if plain is None:
            raise RedactedError(domain, event.position)
        return plain


def _encrypted(cipher: Cipher, subject: str, names: list[str], content: bytes, bound: bytes) -> Blob:
    key_id, blob = cipher.encrypt(subject, content, bound)
    return Blob("+".join([*names, f"{AES_GCM}:{key_id}"]), blob, key_id, partial(_encrypted, cipher, subject, names, content, bound))


def codecs_of(event: Event) -> list[str]:
    """What was done to the text of a blob, in that order."""
    return _decode_meta(event.meta or "{}").codec.split("+")


def encrypted_with(event: Event) -> str | None:
    """The id of the key that the value of an event is encrypted with; None for any other."""
    if not isinstance(event.data, bytes):
        return None
    return next((name.partition(":")[2] for name in codecs_of(event) if name.startswith(f"{AES_GCM}:")), None)


def is_readable(event: Event) -> bool:
    """Whether what a blob says can be told from itself: it names a codec, and none that needs a key."""
    try:
        names = codecs_of(event)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return False
    return names != [""] and not any(name.startswith(f"{AES_GCM}:") for name in names)


def with_codec(meta: str | None, codec: str) -> str:
    """`meta` of an event whose value is a blob."""
    said = f'{{"codec":{_encode(codec).decode()}}}'
    return said if meta is None else f"{said[:-1]},{meta[1:]}"


def inflated(content: bytes, domain: str, position: int, max_bytes: int) -> bytes:
    """What was compressed, if it is no more than `max_bytes`; no more than that is ever unpacked. Raises FormatError."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(content, max_bytes + 1)
    except zlib.error as error:
        raise FormatError(domain, position, f"the blob is no zlib stream ({error}); run `eventstore verify`") from error
    if len(plain) > max_bytes:
        raise FormatError(
            domain,
            position,
            f"the value inflates to more than {max_bytes} bytes (max_value_bytes) and was not unpacked; raise that if it may",
        )
    if not stream.eof or stream.unused_data:
        raise FormatError(domain, position, "the zlib stream of the blob does not end where the blob does; run `eventstore verify`")
    return plain
