"""Lives of a store whose past is elsewhere: erased in where it lies, deleted for good, backed up and restored."""

from __future__ import annotations

import contextlib
from pathlib import Path

import eventstore
from eventstore import Retention, backup
from eventstore.restore import restore
from tests.faults.jobs import busy_settings
from tests.faults.ledger import DOMAIN
from tests.faults.lives import archive_where_it_is, promise, small_settings
from tests.faults.recorder import mark, recorded
from tests.faults.survival import ARCHIVE_AS_NAMED
from tests.faults.workers import Steps, Tell, adjust, die

SUBJECT = "subject"
PAD = 6_000


def told(name: str, number: int) -> str:
    """A value that is to be erased; it stands nowhere else."""
    return f"told in confidence {name}.{number}"


def redact_in_archive(tell: Tell, root: str, log: str, name: str, rounds: int) -> None:
    """What is to be erased among other things, sealed and archived; then it is erased, where it lies and where it is carried."""
    small_settings()
    archive_where_it_is()
    archive = Path(root, "archive")
    with recorded(Path(root), Path(log)), contextlib.chdir(root):
        for number in range(rounds):
            with eventstore.open(Path(root, "store"), archives=[ARCHIVE_AS_NAMED]) as store:
                domain, word = store.domain(DOMAIN), told(name, number)
                mark(open=True)
                domain.write_value(SUBJECT, {"word": word, "pad": "x" * PAD * (number % 2), "again": word}, run_id=f"{name}.{number}")
                promise(domain, f"{name}.{number}.other", None)
                store.seal(DOMAIN)
                store.archive(DOMAIN, to=archive)
                promise(domain, f"{name}.{number}.between", None)
                done = domain.redact(SUBJECT, reason="asked")
                assert done.complete, done
                head = domain.head()
                mark(domain=DOMAIN, durability="power", appended=[[head.position, head.checksum.hex()]], erased=word)


def delete_recorded(tell: Tell, root: str, log: str, name: str, rounds: int, keep: int) -> None:
    """Some writes, a seal, every other time an archiving, and the past is deleted for good, all or all but so many events of it."""
    small_settings()
    archive = Path(root, "archive")
    with recorded(Path(root), Path(log)):
        for number in range(rounds):
            with eventstore.open(Path(root, "store"), archives=[archive]) as store:
                domain = store.domain(DOMAIN)
                mark(open=True)
                for part in range(3):
                    key, value = f"key-{part % 2}", f"{name}.{number}.{part}"
                    receipt = domain.write_value(key, value, event_id=value)
                    mark(position=receipt.position, checksum=receipt.checksum.hex(), key=key, value=value)
                store.seal(DOMAIN)
                if number % 2:
                    store.archive(DOMAIN, to=archive)
                (report,) = store.retain(Retention(keep_events=keep), DOMAIN, delete=True)
                assert report.kept == [], report
                assert report.files or keep, report
                mark(deleted=report.files[-1].last if report.files else 0, head=domain.head().position)


def make_past(tell: Tell, folder: str, archive: str, name: str) -> None:
    """A store with all there may be: files sealed, archived and deleted, values erased, and some of two domains in the live file."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        for part in range(4):
            for number in range(5):
                domain.write_value(f"key-{number}", [name, part, number], event_id=f"{part}-{number}")
            domain.write_value(SUBJECT, told(name, part))
            store.seal(DOMAIN)
        (first, second, *_) = store.archive(DOMAIN, to=archive, dry_run=True)[0].files
        store.archive(DOMAIN, before=first.last + 1, to=archive)
        store.retain(Retention(keep_events=domain.head().position - first.last), DOMAIN, delete=True)
        store.archive(DOMAIN, before=second.last + 1, to=archive)
        domain.redact(SUBJECT, reason="asked")
        domain.write_values([(f"last-{number}", number) for number in range(5)])
        store.domain("idle").write_value("key", 1)


def back_up_past(tell: Tell, folder: str, to: str, at: int = 0) -> None:
    """Back up; die at step `at`, if there are so many."""
    adjust(backup, _SETTLED_NS=-1)
    with eventstore.open(folder, read_only=True) as store:
        with Steps(at, die) as steps:
            store.backup(to, processes=1)
        tell(steps=steps.count)


def restore_past(tell: Tell, root: str, log: str, name: str) -> None:
    """Restore, and mark that it is there."""
    with recorded(Path(root), Path(log)):
        restore(Path(root, "backup"), Path(root, "again"), processes=1)
        mark(restored=True)


def redact_attached(tell: Tell, folder: str, archive: str, die_in: str, at: int) -> None:
    """Open a store with its archive and erase what is in both; die at step `at` of a part.

    To die in `open` it is erased without the archive first: what is left is for the opening that has it.
    """
    busy_settings()
    if die_in == "open":
        with eventstore.open(folder) as store:
            store.domain(DOMAIN).redact(SUBJECT, reason="asked")
    with Steps(at if die_in == "open" else 0, die) as opening:
        store = eventstore.open(folder, archives=[archive])
        domain = store.domain(DOMAIN)
    with Steps(at if die_in == "redact" else 0, die) as redacting:
        done = domain.redact(SUBJECT, reason="asked")
    tell(complete=done.complete, steps={"open": opening.count, "redact": redacting.count})
    store.close()
