"""Write a value; every write appends an event. A store and a domain that do not exist yet are made.

VALUE is JSON text, @FILE, or - for standard input, and is stored as it is, byte for byte (of a file or of standard
input without one newline at the end). KEY is a plain string or a JSON array. After -- both may begin with a minus.

Exit 1 if --expected was not met; nothing is written then.

Example:
  eventstore put data notes hello '{"a": 1}'
  eventstore put data positions '["binance", "BTCUSDT"]' '{"size": 2}' --when 2026-11-21T10:00:00Z --actor risk-bot
  eventstore put data notes hello '{"a": 2}' --expected 1 --reason "a better idea"
  echo '[1, 2, 3]' | eventstore put data notes list -
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from eventstore.meta import EventMeta
from eventstore.model import Durability, Expected, Key, Receipt
from eventstore.opening import open_store
from eventstore.rules import Unchanged
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import Paint, escape, key_text


class WriteOptions(EventMeta, total=False):
    """What may be said about any write; the names are those of write_value()."""

    when: int
    expected: Expected | int
    event_id: str
    durability: Durability


class WriteReport(msgspec.Struct, frozen=True):
    """The receipt of a write, and what was written."""

    op: Literal["put", "remove"]
    domain: str
    key: Key
    position: int
    checksum: str
    durability: str
    appended: bool

    @property
    def exit_code(self) -> int:
        """1 if a removal found nothing to remove."""
        return int(self.op == "remove" and not self.appended)


def put(location: str, domain: str, key: Key, value: msgspec.Raw, *, unchanged: Unchanged = "append", options: WriteOptions) -> WriteReport:
    """Write `value`, which is stored byte for byte; where `unchanged` is "skip" only if it, or its time, is another one."""
    with open_store(location) as store:
        written = raw_domain(store, domain).write_value(key, value, unchanged=unchanged, **options)
    return report_of("put", key, written)


def report_of(op: Literal["put", "remove"], key: Key, receipt: Receipt) -> WriteReport:
    """A receipt as a report."""
    return WriteReport(op, receipt.domain, key, receipt.position, receipt.checksum.hex(), receipt.durability, receipt.appended)


def render(report: WriteReport, paint: Paint) -> Iterator[str]:
    """One line: what stands where."""
    where = f"{paint(escape(report.domain), 'name')} {key_text(report.key)}"
    receipt = paint(f"position {report.position}, {report.durability}", "dim")
    if report.appended:
        yield f"{report.op}  {where}  {receipt}"
    elif report.op == "put":
        yield f"unchanged  {where}  {receipt}"
    else:
        yield f"nothing to remove: {where}"
