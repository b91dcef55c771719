"""An event-sourced state store on an append-only log: open() is the way in."""

from __future__ import annotations

from eventstore.codec import decode_key, encode_key
from eventstore.domain import Batch, DomainStore
from eventstore.errors import (
    AccessError,
    ChecksumError,
    ClosedError,
    ConfigError,
    ConflictError,
    ContractError,
    CorruptionError,
    DiskFullError,
    DuplicateEventError,
    EngineError,
    EventStoreError,
    FencedError,
    FormatError,
    GapError,
    HaltedError,
    InvalidKeyError,
    InvalidValueError,
    NaiveTimeError,
    NewerFormatError,
    NotAStoreError,
    NotFoundError,
    ReadOnlyError,
    RedactedError,
    StoreFormatError,
    TailLostError,
    UnavailableError,
    WrongExpectedError,
)
from eventstore.links import Finding
from eventstore.model import ABSENT, ANY, PRESENT, Domain, Event, Expected, Head, KeyState, Receipt
from eventstore.opening import open_store as open
from eventstore.store import Store
from eventstore.values import decode_value
from eventstore.verify import DomainReport, Report
from eventstore.view import DomainView

__all__ = [
    "ABSENT",
    "ANY",
    "PRESENT",
    "AccessError",
    "Batch",
    "ChecksumError",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "ContractError",
    "CorruptionError",
    "DiskFullError",
    "Domain",
    "DomainReport",
    "DomainStore",
    "DomainView",
    "DuplicateEventError",
    "EngineError",
    "Event",
    "EventStoreError",
    "Expected",
    "FencedError",
    "Finding",
    "FormatError",
    "GapError",
    "HaltedError",
    "Head",
    "InvalidKeyError",
    "InvalidValueError",
    "KeyState",
    "NaiveTimeError",
    "NewerFormatError",
    "NotAStoreError",
    "NotFoundError",
    "ReadOnlyError",
    "Receipt",
    "RedactedError",
    "Report",
    "Store",
    "StoreFormatError",
    "TailLostError",
    "UnavailableError",
    "WrongExpectedError",
    "decode_key",
    "decode_value",
    "encode_key",
    "open",
]
