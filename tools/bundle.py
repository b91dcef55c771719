"""Prove some events to a stranger.

A bundle is one line of JSON for somebody who has neither the store nor eventstore-kit: the events as they are stored, and
for each the hashes that lead from it to the root of the tree over the whole log. Choose them by KEY, by positions, by what
they belong to, or by a range, and hand the FILE over with the program that `--verifier` prints: one file, nothing to install.
It says of every event PROVEN or NOT PROVEN, by an anchor (`eventstore anchor`) that reached the other side by another way,
or by your signature.

Against an anchor that is older than the bundle, the bundle must show that the log only grew since: name that anchor
with --since. PEM is an Ed25519 private key. A bundle holds values: redacting them later does not reach it.

What was archived takes --archive DIR; of what was deleted nothing can be proven any more, nor that the log only grew since an
anchor from before its end. A bundle made --since that anchor before the deletion carries it over: its own anchor goes on.

Example:
  eventstore bundle data notes --key hello
  eventstore bundle data notes --position 1 --since anchor.json -o decision.json
  eventstore bundle data notes --after 0 --private-key private.pem -o signed.json
  eventstore bundle --verifier | python3 - decision.json --anchor anchor.json
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from eventstore.adapters.signing import sign
from eventstore.bundles import Bundle
from eventstore.clock import format_us
from eventstore.copies import require_outside
from eventstore.errors import ConfigError
from eventstore.files import os_errors, replace_file
from eventstore.model import Domain, Key
from eventstore.tools.anchor import kept_anchor
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape


class BundleReport(msgspec.Struct, frozen=True):
    """What was bundled, and the file that it was written to; without one, the bundle itself."""

    store: str
    output: str | None
    domain: str
    head: int
    positions: list[int]
    made_us: int
    signed_by: str | None
    bundle: Bundle | None

    exit_code = 0


def bundle(
    location: str,
    domain: str,
    output: Path | None = None,
    *,
    key: Key | None = None,
    positions: Iterable[int] | None = None,
    correlation_id: str | None = None,
    after: int | None = None,
    until: int | None = None,
    since: Path | None = None,
    private_key: Path | None = None,
    read_only: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> BundleReport:
    """Bundle events of one domain. Raises as Store.bundle() does, ConfigError for a file that exists or a bad key."""
    if output is not None:
        require_outside(output)
        if os.path.lexists(output):
            raise ConfigError(f"{output} exists already, and may have been handed out: name another file")
    old = None if since is None else kept_anchor(since)
    with existing_store(location, read_only=read_only, archives=archives) as store:
        made = store.bundle(
            Domain(domain).name,
            key=key,
            positions=positions,
            correlation_id=correlation_id,
            after=after,
            until=until,
            since=old,
            progress=progress,
        )
    if private_key is not None:
        made = msgspec.structs.replace(made, anchor=sign(made.anchor, private_key))
    if output is not None:
        with os_errors(f"writing {output}"):
            replace_file(output, made.text().encode() + b"\n")
    anchor = made.anchor
    return BundleReport(
        location,
        None if output is None else str(output),
        domain,
        anchor.heads[domain].position,
        [event.position for event in made.events],
        anchor.made_us,
        None if anchor.signature is None else anchor.signature.key,
        made if output is None else None,
    )


def verifier() -> str:
    """The program that checks a bundle, as text."""
    return resources.files("eventstore.tools").joinpath("verify_bundle.py").read_text(encoding="utf-8")


def render(report: BundleReport, paint: Paint) -> Iterator[str]:
    """The bundle itself, or a sentence about the file."""
    if report.bundle is not None:
        yield report.bundle.text()
        return
    signed = "not signed" if report.signed_by is None else f"signed by {report.signed_by}"
    events = count_text(len(report.positions), "event")
    yield (
        f"{escape(str(report.output))}: {events} of {escape(report.domain)}@{report.head} of {escape(report.store)}"
        f" at {format_us(report.made_us)}, {signed}"
    )
