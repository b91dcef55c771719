"""What workers do with backups: make and restore them, be killed in between, be refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import eventstore
from eventstore import backup
from eventstore.restore import restore
from tests.faults.jobs import busy_settings
from tests.faults.ledger import DOMAIN, acknowledgement, carry_out
from tests.faults.limits import be_nobody, described
from tests.faults.recorder import count, mark, recorded
from tests.faults.workers import Steps, Tell, adjust, die

OTHER = "idle"


def make(tell: Tell, folder: str, name: str, calls: int) -> None:
    """A store of two domains, written so many times each, and closed."""
    with eventstore.open(folder) as store:
        for domain in (DOMAIN, OTHER):
            for number in range(calls):
                carry_out(store.domain(domain), f"{name}.{domain}.{number}")


def write_more(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Write the first of them on, and leave the events in the WAL."""
    store = eventstore.open(folder)
    for number in range(calls):
        carry_out(store.domain(DOMAIN), f"{name}.{number}")
    die()


def back_up(tell: Tell, folder: str, to: str, at: int = 0) -> None:
    """Back up; die at step `at`, if there are so many."""
    adjust(backup, _SETTLED_NS=-1)
    with eventstore.open(folder, read_only=True) as store:
        with Steps(at, die) as steps:
            report = store.backup(to, processes=1)
        tell(steps=steps.count, kept=report.kept, copied=report.copied)


def restore_into(tell: Tell, source: str, folder: str, at: int = 0) -> None:
    """Restore; die at step `at`, if there are so many."""
    with Steps(at, die) as steps:
        restore(source, folder, processes=1)
    tell(steps=steps.count)


def back_up_recorded(tell: Tell, root: str, log: str | None, name: str, times: int, fault: str = "") -> None:
    """Write, back up, mark that it is made, and so on."""
    adjust(backup, _SETTLED_NS=-1)
    with recorded(Path(root), Path(log) if log else None, fault=fault), eventstore.open(Path(root, "store")) as store:
        for number in range(times):
            domain = store.domain(DOMAIN)
            carry_out(domain, f"{name}.{number}", durability="power")
            mark(begun=domain.head().position)
            store.backup(Path(root, "backup"), processes=1)
            mark(made=domain.head().position)


def restore_recorded(tell: Tell, root: str, log: str | None, name: str) -> None:
    """Restore, and mark that it is there."""
    with recorded(Path(root), Path(log) if log else None):
        restore(Path(root, "backup"), Path(root, "again"), processes=1)
        mark(restored=True)


def back_up_refused(tell: Tell, root: str, folder: str, fault: str) -> None:
    """Back up against a disk that refuses a call; then once more, where it does not."""
    adjust(backup, _SETTLED_NS=-1)
    with eventstore.open(folder, read_only=True) as store, recorded(Path(root), None, fault=fault):
        try:
            store.backup(Path(root, "backup"), processes=1)
        except eventstore.EngineError as error:
            tell(refused=described(error))
        tell(sync=count("sync"), write=count("write"), name=count("name"))


def restore_refused(tell: Tell, root: str, source: str, fault: str) -> None:
    """Restore against a disk that refuses a call."""
    with recorded(Path(root), None, fault=fault):
        try:
            restore(source, Path(root, "again"), processes=1)
        except eventstore.EngineError as error:
            tell(refused=described(error))
        tell(sync=count("sync"), write=count("write"), name=count("name"))


def write_on(tell: Tell, folder: str, name: str) -> None:
    """Write until killed, telling every acknowledgement, with checkpoints all the while."""
    busy_settings()
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        tell(open=True)
        for number in itertools.count():
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))


def back_up_as_nobody(tell: Tell, folder: str) -> None:
    """Into a folder that may not be written, one that may not be listed; out of a backup that may not be read."""
    place = Path(folder)
    (place / "mine").mkdir(mode=0o777)
    (place / "mine").chmod(0o777)
    for name, mode in (("closed", 0o555), ("hidden", 0o300)):
        (place / name).mkdir()
        (place / name).chmod(mode)
    with eventstore.open(place / "theirs") as store:
        store.domain(DOMAIN).write_value("key", 1)
        store.backup(place / "kept")
    be_nobody()
    store = eventstore.open(place / "mine" / "store")
    store.domain(DOMAIN).write_value("key", 1)
    for refused in (
        lambda: store.backup(place / "closed" / "backup"),
        lambda: store.backup(place / "hidden"),
        lambda: restore(place / "kept", place / "mine" / "again"),
    ):
        try:
            refused()
        except eventstore.EngineError as error:
            tell(refused=described(error))
    store.close()
