"""Accept that a domain lost its last events, or its event ids.

Then it can be written again. It must be damaged at its end: fewer events, or others, than were known to be durable.
The damaged files are kept in STORE/quarantine, and an event records what was lost. Restore a newer copy of the files
instead, if there is one. Or the event ids of archived or deleted events must be lost: then a retry of such a call may
be written a second time. Nothing is done to a domain that has lost nothing.

Example:
  eventstore accept data notes
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.model import Domain
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, escape, json_safe


class AcceptReport(msgspec.Struct, frozen=True):
    """What was accepted; `position` is that of the event that says so, None if nothing was lost."""

    domain: str
    accepted: bool
    position: int | None
    loss: msgspec.Raw | None

    exit_code = 0


def accept(location: str, domain: str) -> AcceptReport:
    """Accept the loss of a log's end, or of its event ids. Raises NotFoundError, CorruptionError for damage of another kind."""
    with existing_store(location) as store:
        head = store.accept(Domain(domain).name)
        if head is None:
            return AcceptReport(domain, False, None, None)
        event = next(store.domain(domain).events(head.position - 1, head.position))
        loss = msgspec.Raw(event.data.encode()) if isinstance(event.data, str) else None
        return AcceptReport(domain, True, head.position, loss)


def render(report: AcceptReport, paint: Paint) -> Iterator[str]:
    """A sentence."""
    if not report.accepted:
        yield f"{escape(report.domain)}: nothing was lost, nothing was done"
        return
    yield f"{escape(report.domain)}: the loss is accepted, and recorded at position {report.position}; the domain can be written again"
    if report.loss is not None:
        yield paint("    " + json_safe(bytes(report.loss).decode()), "dim")
