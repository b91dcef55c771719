"""The event ids of events that are elsewhere: part of the store (FORMAT.md section 5), so that no retry is ever written twice.

They are kept before a file goes. An opening for writing sees to it again, as a log may be at hand whose events say that its files
went, after an import, or a file of ids may be damaged that can be made again. What cannot be made again is refused to nobody but
who asks by an event_id, until the user puts it back or accepts the loss.
"""

from __future__ import annotations

import logging

from eventstore.archive import moving
from eventstore.archived import latest
from eventstore.carried import Beginning
from eventstore.errors import EventStoreError, LostIdsError, UnavailableError
from eventstore.group import GroupCommit
from eventstore.log import EventLog, FileLog
from eventstore.model import Head
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import KeyStates

_log = logging.getLogger("eventstore")


def keep_gone(group: GroupCommit, *, accept_loss: bool) -> tuple[bool, Head | None]:
    """For an opening for writing: see to it that the ids of all events that are elsewhere are kept.

    Gives whether they are, so that files may go, and the event of a loss that was accepted. What could not be done is logged.
    """
    log = group.live.log
    if not isinstance(log, FileLog) or not group.live.states.system:  # no file of it was ever sealed
        return True, None
    accepted: Head | None = None
    reach = 0
    try:
        said = latest(log.archived(group.live.fresh().system))
        until = max([0, *(last for _, last in log.missing()), *(each.last for each in said.values())])
        while until or accept_loss:
            try:
                # Whoever moves files at this moment has seen to it, and it may take long; who accepts a loss waits for the answer.
                with moving(group, timeout_ms=None if accept_loss else 0):
                    if until:
                        group.live.keep_ids(until)
                    if accept_loss:
                        group.live.ids.prepare()  # of what is at hand, damaged rows may say nothing
                break
            except LostIdsError as lost:
                if not accept_loss or lost.last <= reach:
                    raise
                accepted, reach = _accept(group, lost), lost.last
    except EventStoreError as error:
        if accept_loss or not isinstance(error, UnavailableError):
            _log.warning("%s", error)
        return False, accepted
    return True, accepted


def keep_adopted(log: EventLog, beginning: Beginning) -> None:
    """For a log that is being made of what is left of another: its first file is there, and nothing behind it yet."""
    if isinstance(log, FileLog):
        PointerFolder(log.folder / "pointers", log, writable=True).keep(beginning.ids, log.head())


def _accept(group: GroupCommit, lost: LostIdsError) -> Head:
    """Say so in the log first: who is killed in between is asked again, and says it twice."""
    how = "as rows there are damaged" if lost.damaged else "with their files"
    reason = (
        f"the event ids of positions {lost.first} to {lost.last} were lost {how}: a retry of a call that was made there"
        " may have been written a second time from here on"
    )

    def say(states: KeyStates) -> object:
        return {"witnessed": None, "found": {"position": states.head.position, "checksum": states.head.checksum.hex()}, "reason": reason}

    accepted: list[Head] = []
    with moving(group):
        group.record("loss", say, lambda: accepted.append(group.live.states.head))
        group.live.ids.give_up(lost)
    return accepted[0]
