"""A worker whose disk refuses one call, or all from then on: what it is told, what it finds afterwards, how it goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import eventstore
from eventstore import EngineError, HaltedError
from tests.faults.ledger import DOMAIN, acknowledgement, call_of, carry_out
from tests.faults.limits import described
from tests.faults.lives import small_settings
from tests.faults.recorder import count, recorded
from tests.faults.workers import Tell

SESSIONS, CALLS = 2, 8


class Writer:
    """Makes calls; when one is refused, proves what it was told, mends the disk, opens anew and makes it again."""

    def __init__(self, tell: Tell, place: Path, disk: contextlib.ExitStack, *, halts: bool) -> None:
        self._tell, self._place, self._disk, self._halts = tell, place, disk, halts
        self._store: eventstore.Store | None = None
        self._acknowledged: dict[int, bytes] = {}

    def write(self, call: str) -> None:
        """Make a call, twice if the machine refuses the first time."""
        domain = None
        try:
            self._store = self._store or eventstore.open(self._place)
            domain = self._store.domain(DOMAIN)
            receipts = carry_out(domain, call, retry=True)
        except EngineError as error:
            if domain is None:
                self._tell(refused=described(error), during="open")
            else:
                self._look_around(domain, call, error)
            self.close()
            self._disk.close()
            self._open_again(call, error if domain is not None else None)
            assert self._store is not None
            receipts = carry_out(self._store.domain(DOMAIN), call, retry=True)
        self._acknowledged.update((receipt.position, receipt.checksum) for receipt in receipts if receipt.appended)
        self._tell(**acknowledgement(call, receipts))

    def seal(self) -> None:
        """Seal the log. Refused, the disk is mended and the log opened anew: then it is sealed, or is now; nothing is lost either way."""
        try:
            self._store = self._store or eventstore.open(self._place)
            self._store.seal(DOMAIN)
        except EngineError as error:
            self._tell(refused=described(error), during="seal")
            if self._store is not None and self._acknowledged:
                found = {event.position: event.checksum for event in self._store.domain(DOMAIN).events()}
                assert self._acknowledged.items() <= found.items(), "acknowledged, and not readable after a refusal"
            self.close()
            self._disk.close()
            self._open_again("", None)
            assert self._store is not None
            self._store.seal(DOMAIN)
        assert next(self._store.domain(DOMAIN).events(reverse=True, limit=1)).op == "seal"

    def close(self) -> None:
        """Close the store; that may be refused, too."""
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except EngineError as error:
                self._tell(refused=described(error), during="close")

    def _look_around(self, domain: eventstore.DomainStore, call: str, error: EngineError) -> None:
        """Still open: what was acknowledged is readable, and a connection that failed to sync is not written through again."""
        self._tell(refused=described(error), during="write")
        if not isinstance(error, HaltedError):
            assert error.event_id == f"id of {call}", f"the error is about {error.event_id!r}, not about {call}"
        found = {event.position: event.checksum for event in domain.events()}
        assert self._acknowledged.items() <= found.items(), "acknowledged, and not readable after a refusal"
        if self._halts:
            try:
                domain.write_value("beyond", 1)
                raise AssertionError("written through a connection whose sync had failed")
            except HaltedError:
                pass
            # The store stops all its domains; the log has to stop by itself, too.
            try:
                with domain._live.log.writing():
                    raise AssertionError("the log would be written through a connection whose sync had failed")
            except HaltedError:
                pass

    def _open_again(self, call: str, error: EngineError | None) -> None:
        self._store = eventstore.open(self._place)
        events = list(self._store.domain(DOMAIN).events())
        found = {event.position: event.checksum for event in events}
        assert self._acknowledged.items() <= found.items(), "acknowledged, and lost"
        if error is not None and error.outcome == "not_written":
            assert call not in {call_of(event) for event in events}, f"{error!r} said that it was not written"


def write_against(tell: Tell, root: str, name: str, fault: str) -> None:
    """Sessions against a disk that refuses what `fault` says (shim.c), until the first call is refused; then mend it and go on."""
    small_settings()
    what, _, how, _ = fault.split(":") if fault else ("", "", "", "")
    with contextlib.ExitStack() as disk:
        disk.enter_context(recorded(Path(root), None, fault=fault))
        writer = Writer(tell, Path(root, "store"), disk, halts=what == "sync" and how != "")
        for session in range(SESSIONS):
            for number in range(CALLS):
                writer.write(f"{name}.{session}.{number}")
                if number == CALLS // 2:
                    writer.seal()
            writer.close()
        if not fault:
            tell(sync=count("sync"), write=count("write"), name=count("name"))
