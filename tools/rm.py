"""Remove a key's value. Its history stays; the removal is one more event.

Exit 1 if there was nothing to remove, or --expected was not met.

Example:
  eventstore rm data notes hello --reason done
"""

from __future__ import annotations

from eventstore.model import Key
from eventstore.tools.put import WriteOptions, WriteReport, render, report_of
from eventstore.tools.stores import existing_domain, existing_store

__all__ = ["render", "rm"]


def rm(location: str, domain: str, key: Key, *, options: WriteOptions) -> WriteReport:
    """Remove `key` from a domain that exists. Raises NotFoundError if the domain does not."""
    with existing_store(location) as store:
        return report_of("remove", key, existing_domain(store, domain).remove_value(key, **options))
