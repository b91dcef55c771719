"""Make a store.

The folder must be empty or missing; if a store is there already, its path and id are printed.

Example:
  eventstore init data
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.opening import open_store
from eventstore.tools.terminal import Paint, escape


class InitReport(msgspec.Struct, frozen=True):
    """The store that is there now."""

    store: str
    store_id: str

    exit_code = 0


def init(location: str) -> InitReport:
    """Open the store at `location`, making it if there is none. Raises NotAStoreError for a folder that holds something else."""
    with open_store(location) as store:
        return InitReport(store.location, store.store_id)


def render(report: InitReport, paint: Paint) -> Iterator[str]:
    """Path and id."""
    yield f"{escape(report.store)}  {paint(report.store_id, 'dim')}"
