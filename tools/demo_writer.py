"""The process that `eventstore demo` kills: it writes the recorded session and tells its parent what was acknowledged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.errors import EngineError
from eventstore.model import Durability
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools.recording import Write, read_recording

SESSION = Path(__file__).resolve().parent / "demo_data" / "session.jsonl.gz"
"""The recorded session that travels with the package."""


class Ack(msgspec.Struct, frozen=True):
    """Write number `index` returned: the store has promised to keep it, as durably as it says. `appended` is False where there
    was nothing to remove.
    """

    index: int
    domain: str
    position: int
    checksum: str
    durability: Durability
    appended: bool


REFUSED = 2
"""How the writer exits where the machine refuses: a full disk, a folder that may not be written."""


def event_id(index: int) -> str:
    """The id of a write: the same in every attempt, so that a retry of what already landed does nothing."""
    return f"demo-{index}"


def write_from(store: Store, writes: Sequence[Write], first: int) -> Iterator[Ack]:
    """Do the writes from number `first` on, one by one; each acknowledgement exists only because its receipt returned."""
    for index in range(first, len(writes)):
        write = writes[index]
        domain = store.domain(write.domain)
        if write.text is None:
            receipt = domain.remove_value(write.key, when=write.when_us, event_id=event_id(index), actor="demo")
        else:
            value = msgspec.Raw(write.text.encode())
            receipt = domain.write_value(write.key, value, when=write.when_us, event_id=event_id(index), actor="demo")
        yield Ack(index, receipt.domain, receipt.position, receipt.checksum.hex(), receipt.durability, receipt.appended)


def main(folder: str) -> None:
    """Write the session into a store in `folder`, one JSON line on stdout for every acknowledgement."""
    writes = read_recording(SESSION)
    with open_store(folder, durability="power") as store:
        for ack in write_from(store, writes, 0):
            # One write() a line, past every buffer: what the parent reads was sent, what it does not read was not.
            os.write(1, msgspec.json.encode(ack) + b"\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except EngineError as refused:
        print(refused, file=sys.stderr)
        sys.exit(REFUSED)
