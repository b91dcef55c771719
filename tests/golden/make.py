"""The golden stores: one small store for each thing that can be on the disk, and what it said to the version that made it.

    python tests/golden/make.py

makes all of them anew for the format of this checkout, in tests/golden/format<number>/: of each a tar file and a page of JSON. Once
a format is released its stores are never made again: tests/eventstore/test_golden.py opens what was written then.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

import eventstore
from eventstore import Domain, DomainView, NotFoundError, Receipt, RedactedError, Retention, Store
from eventstore.adapters.signing import sign
from eventstore.codec import FORMAT
from eventstore.model import Key

HERE = Path(__file__).parent
GOLDEN = HERE / f"format{FORMAT}"

LARGE = {"text": "what compresses " * 100}
SUBJECTS = Domain("people", subject=lambda key: str(key[0]) if isinstance(key, tuple) else str(key))
ORDERS = "orders"


def opened(folder: Path, *, archives: bool = True, **options: Any) -> Store:
    """The store in a golden folder, with the archive and the key file that stand beside it."""
    if archives and (folder / "archive").exists():
        options["archives"] = [folder / "archive"]
    if (folder / "keys.jsonl").exists():
        options["keys"] = folder / "keys.jsonl"
    return eventstore.open(folder / "store", **options)


def orders(store: Store, first: int, last: int) -> None:
    """Events of three keys in turn, each with a time and an id of its own."""
    for n in range(first, last + 1):
        order(store, n)


def order(store: Store, n: int) -> Receipt:
    """One of them; a second time it is a retry."""
    when = 1_700_000_000_000_000 + n
    return store.domain(ORDERS).write_value(f"order-{n % 3}", {"n": n}, when=when, event_id=f"id-{n}", actor="bot")


# ---- one store each


def plain(folder: Path) -> None:
    """Keys and values of every shape, batches, removals, metadata, retries."""
    with eventstore.open(folder / "store", store_id="1" * 32, actor="maker") as store:
        domain = store.domain("shapes")
        for key in ("text", "", ("parts", 7, ""), 'ключ"\\\n', ("e\u0301", "é")):
            if key:
                domain.write_value(key, {"key": str(key)}, event_id=f"id-{key!r}", reason="a first one")
        raws = [b"-0.0", b"1e300", b"[]", b'""', b'"\\ud83d"', b'{"b":1,"a":null}', str(7**4000).encode(), b"null", b"  [ 1 ]"]
        for number, raw in enumerate(raws):
            domain.write_value(("raw", number), msgspec.Raw(raw), when=-1 - number)
        domain.remove_value("text", when=5, correlation_id="talk", causation_id="cause", run_id="run", tags=["a", "b"])
        domain.write_values([(("row", n), [n]) for n in range(5)], event_id="batch", schema="row/1")
        domain.remove_all(("row",), reason="not these")
        domain.restore_value("text", 1)
        domain.write_value("text", "again", type="correction")
        domain.write_value("text", "last", event_id="last")


def domains(folder: Path) -> None:
    """Several logs, both rules, one without an event."""
    with eventstore.open(folder / "store", store_id="2" * 32) as store:
        store.domain(Domain("candles", write="first")).write_value(("BTCUSDT", 60), {"close": 1})
        store.domain("candles").write_value(("BTCUSDT", 60), {"close": 2})
        orders(store, 1, 5)
        store.domain("empty")


def sealed(folder: Path) -> None:
    """Three files."""
    with eventstore.open(folder / "store", store_id="3" * 32) as store:
        orders(store, 1, 4)
        store.seal(ORDERS)
        orders(store, 5, 9)
        store.domain(ORDERS).remove_value("order-1")
        store.seal(ORDERS)
        orders(store, 10, 11)


def archived(folder: Path) -> None:
    """Four files, two of them beside, in an archive."""
    with eventstore.open(folder / "store", store_id="4" * 32) as store:
        for first in (1, 5, 9):
            orders(store, first, first + 3)
            store.seal(ORDERS)
        orders(store, 13, 14)
        store.archive(ORDERS, before=11, to=folder / "archive")


def deleted(folder: Path) -> None:
    """The past is gone, for good."""
    with eventstore.open(folder / "store", store_id="5" * 32) as store:
        orders(store, 1, 6)
        store.seal(ORDERS)
        orders(store, 7, 9)
        store.retain(Retention(keep_events=3), delete=True)


def redacted(folder: Path) -> None:
    """Values erased in the live file and in a sealed one."""
    with eventstore.open(folder / "store", store_id="6" * 32) as store:
        orders(store, 1, 5)
        store.seal(ORDERS)
        orders(store, 6, 9)
        store.domain(ORDERS).redact("order-1", reason="asked for", actor="keeper")
        store.domain(ORDERS).write_value("order-1", "new")


def shredded(folder: Path) -> None:
    """Values of two subjects, the key of one destroyed; the key file is beside."""
    with eventstore.open(folder / "store", store_id="7" * 32, keys=folder / "keys.jsonl") as store:
        people = store.domain(SUBJECTS)
        for n in range(3):
            people.write_value(("ann", n), {"mail": f"ann{n}@example.org"})
            people.write_value(("ben", n), {"mail": f"ben{n}@example.org"})
        store.shred("ann", reason="wished it", actor="keeper")


def compressed(folder: Path) -> None:
    """Values as blobs, one among them as text; and one compressed, then encrypted."""
    with eventstore.open(folder / "store", store_id="8" * 32, keys=folder / "keys.jsonl") as store:
        texts = store.domain(Domain("texts", codec="zlib"))
        texts.write_value("large", LARGE)
        texts.write_value("small", "too small")
        both = store.domain(Domain("both", codec="zlib", subject=lambda _: "carl"))
        both.write_value("large", LARGE)


def loss(folder: Path) -> None:
    """An old database in the place of the new one, and the loss accepted: what was witnessed is in `quarantine`."""
    file = folder / "store" / "logs" / ORDERS / f"{0:020d}.db"
    with eventstore.open(folder / "store", store_id="9" * 32) as store:
        orders(store, 1, 4)
    shutil.copy(file, folder / "old.db")
    with opened(folder) as store:
        orders(store, 5, 7)
    (folder / "old.db").replace(file)
    with opened(folder, accept_loss=True) as store:
        orders(store, 8, 9)


def intents(folder: Path) -> None:
    """An effect done, one failed, one that nobody settled."""
    with eventstore.open(folder / "store", store_id="a" * 32) as store:
        with store.intent("order-1", {"buy": 1}, actor="bot") as intent:
            intent.done({"filled": 1})
        with store.intent("order-2", {"buy": 2}) as intent:
            intent.fail("no margin")
        try:
            with store.intent("order-3", {"buy": 3}):
                raise ConnectionError("no answer")
        except ConnectionError:
            pass


def proven(folder: Path) -> None:
    """A signed anchor and a signed bundle that begins at it, of a log whose beginning was archived before either."""
    private = ed25519.Ed25519PrivateKey.generate()
    pem, clear = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "private.pem").touch(mode=0o600)
    (folder / "private.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, clear))
    (folder / "public.pem").write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    with eventstore.open(folder / "store", store_id="b" * 32) as store:
        orders(store, 1, 5)
        store.seal(ORDERS)
        orders(store, 7, 9)
        store.archive(ORDERS, to=folder / "archive")
        anchor = sign(store.anchor(), folder / "private.pem")
        orders(store, 10, 12)
        bundle = store.bundle(ORDERS, positions=[7, 9, 11], since=anchor)
    signed = msgspec.structs.replace(bundle, anchor=sign(bundle.anchor, folder / "private.pem"))
    (folder / "anchor.json").write_text(anchor.text() + "\n")
    (folder / "bundle.json").write_text(signed.text() + "\n")
    (folder / "private.pem").unlink()


def backup(folder: Path) -> None:
    """A backup beside its store, which went on since."""
    with eventstore.open(folder / "store", store_id="c" * 32) as store:
        orders(store, 1, 4)
        store.seal(ORDERS)
        orders(store, 6, 8)
        store.domain("others").write_value("key", "kept")
        store.backup(folder / "backup")
        orders(store, 9, 9)


def killed(folder: Path) -> None:
    """What a writer leaves that is killed: the newest events stand in the WAL alone."""
    with eventstore.open(folder / "live", store_id="d" * 32) as store:
        orders(store, 1, 4)
        store.seal(ORDERS)
        orders(store, 5, 9)
        shutil.copytree(folder / "live", folder / "store")
    shutil.rmtree(folder / "live")


def exported(folder: Path) -> None:
    """A store as JSONL beside it."""
    plain(folder)
    command = [sys.executable, "-m", "eventstore", "export", str(folder / "store"), "-o", str(folder / "export.jsonl")]
    subprocess.run(command, check=True, capture_output=True)


STORES: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        *(plain, domains, sealed, archived, deleted, redacted, shredded, compressed, loss, intents, proven, backup, killed, exported),
    )
}


# ---- what a store says


def observed(store: Store) -> dict[str, Any]:
    """All that the verbs of a store say of it: every event, what every key held at every position, the proof and its counts."""
    report = store.verify()
    counts = {each.domain: [each.events, each.floor, each.redacted, each.losses, len(each.archived)] for each in report.domains}
    return {
        "ok": report.ok,
        "counts": counts,
        "uncertain": [[each.event_id, each.effect, each.error] for each in store.uncertain()],
        "domains": {name: _domain(store, name) for name in store.domains()},
    }


def _domain(store: Store, name: str) -> dict[str, Any]:
    domain = store.domain(name)
    floor, head = domain.floor, domain.head()
    events = [domain.event(0), *domain.events(floor)]
    return {
        "head": [head.position, head.checksum.hex()],
        "events": [[e.position, e.prev, e.recorded_us, e.when_us, e.op, e.key, e.meta, _text(domain, e), e.checksum.hex()] for e in events],
        "states": {str(position): _state(domain.state(position)) for position in range(floor, head.position + 1)},
        "now": _state(domain),
        "history": {
            eventstore.encode_key(key): [event.position for event in domain.history(key)] for key in (domain.keys() if not floor else ())
        },
    }


def _text(domain: DomainView, event: eventstore.Event) -> str | None:
    try:
        return domain.text_of(event)
    except (RedactedError, NotFoundError):
        return None


def _state(view: DomainView) -> dict[str, Any]:
    return {eventstore.encode_key(key): _value(view, key) for key in view.keys()}  # noqa: SIM118  a view is no dict


def _value(view: DomainView, key: Key) -> Any:
    try:
        return {"value": view.read_value(key)}
    except RedactedError:
        return "redacted"


def said(folder: Path) -> dict[str, Any]:
    """What a golden folder says: the store with its archive, without it, and the backup."""
    with opened(folder, read_only=True) as store:
        answers = {"store": observed(store)}
    if (folder / "archive").exists():
        with opened(folder, read_only=True, archives=False) as store:
            answers["alone"] = observed(store)
    if (folder / "backup").exists():
        with eventstore.open(folder / "backup", read_only=True) as store:
            answers["backup"] = observed(store)
    return answers


# ---- files


def pack(folder: Path, target: Path) -> None:
    """A folder as a tar file: the same bytes for the same files, whoever packs them and when."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            entry = tar.gettarinfo(path, str(path.relative_to(folder)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            tar.addfile(entry, io.BytesIO(path.read_bytes()) if path.is_file() else None)
    target.write_bytes(gzip.compress(content.getvalue(), 9, mtime=0))


def unpack(source: Path, folder: Path) -> Path:
    """The folder again, with the modes that it had."""
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="tar")
    return folder


def main() -> None:
    """Make all stores."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    for name, make in STORES.items():
        with tempfile.TemporaryDirectory(prefix="golden-") as place:
            folder = Path(place) / name
            folder.mkdir()
            make(folder)
            # Before anybody looks: a look at what a killed process left is one more process.
            pack(folder, GOLDEN / f"{name}.tar.gz")
            answers = said(folder)
        (GOLDEN / f"{name}.json").write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
