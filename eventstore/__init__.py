"""An event-sourced state store on an append-only log: open() is the way in."""

from __future__ import annotations

from eventstore.anchors import Anchor, Judgement
from eventstore.archive import ArchiveReport, FileReport, KeptFile
from eventstore.archived import Archived
from eventstore.bundles import Bundle
from eventstore.codec import decode_key, encode_key
from eventstore.compaction import SealReport
from eventstore.domain import DomainStore
from eventstore.erasure import Erasure, Shredding
from eventstore.errors import (
    AccessError,
    BackupError,
    ChecksumError,
    ClosedError,
    CompactedError,
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
    LostIdsError,
    MissingKeyError,
    NaiveTimeError,
    NewerFormatError,
    NotAStoreError,
    NotFoundError,
    OwnedError,
    ReadOnlyError,
    RedactedError,
    SettledError,
    SignatureError,
    StoreFormatError,
    TailLostError,
    UnavailableError,
    UncertainError,
    WrongExpectedError,
)
from eventstore.intents import OpenIntent, UncertainIntent
from eventstore.links import Finding
from eventstore.metrics import Commit
from eventstore.model import ABSENT, ANY, PRESENT, Domain, Event, Expected, Head, HeldCopy, KeyState, Receipt
from eventstore.opening import open_store as open
from eventstore.retention import PlannedFile, Retention, RetentionPlan
from eventstore.store import Store
from eventstore.values import decode_value
from eventstore.verify import DomainReport, Report
from eventstore.view import DomainView
from eventstore.writes import Batch

__all__ = [
    "ABSENT",
    "ANY",
    "PRESENT",
    "AccessError",
    "Anchor",
    "ArchiveReport",
    "Archived",
    "BackupError",
    "Batch",
    "Bundle",
    "ChecksumError",
    "ClosedError",
    "Commit",
    "CompactedError",
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
    "Erasure",
    "Event",
    "EventStoreError",
    "Expected",
    "FencedError",
    "FileReport",
    "Finding",
    "FormatError",
    "GapError",
    "HaltedError",
    "Head",
    "HeldCopy",
    "InvalidKeyError",
    "InvalidValueError",
    "Judgement",
    "KeptFile",
    "KeyState",
    "LostIdsError",
    "MissingKeyError",
    "NaiveTimeError",
    "NewerFormatError",
    "NotAStoreError",
    "NotFoundError",
    "OpenIntent",
    "OwnedError",
    "PlannedFile",
    "ReadOnlyError",
    "Receipt",
    "RedactedError",
    "Report",
    "Retention",
    "RetentionPlan",
    "SealReport",
    "SettledError",
    "Shredding",
    "SignatureError",
    "Store",
    "StoreFormatError",
    "TailLostError",
    "UnavailableError",
    "UncertainError",
    "UncertainIntent",
    "WrongExpectedError",
    "decode_key",
    "decode_value",
    "encode_key",
    "open",
]
