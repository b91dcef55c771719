"""Say where every log ends now, to keep it elsewhere.

An anchor is one line: position and checksum of each domain's last event, and the root of the tree over all its checksums.
Keep it where whoever can write the store cannot (another machine, a mail, a repository, paper); `eventstore verify STORE
--anchor FILE` then tells whether anything before it was altered, moved or cut off, and a stranger who holds it can check
what `eventstore bundle` wrote. A FILE appears whole or not at all, and none is replaced. PEM is an Ed25519 private key that
nobody else can read, in no store's and no backup's folder, as `openssl genpkey -algorithm ed25519` makes it; signing needs
eventstore-kit[crypto].

For the roots every checksum is read; of what was archived or deleted the log keeps what they take. Without them an anchor
takes a moment, however long the log is, and serves `verify` just as well; it proves no bundle.

Example:
  eventstore anchor data
  eventstore anchor data -o anchor.json --private-key private.pem
  eventstore anchor data --no-roots
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.adapters.signing import sign
from eventstore.anchors import Anchor
from eventstore.clock import format_us
from eventstore.copies import require_outside
from eventstore.errors import ConfigError
from eventstore.files import os_errors, replace_file
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape


class AnchorReport(msgspec.Struct, frozen=True):
    """The anchor, and the file that it was written to, if any."""

    store: str
    output: str | None
    anchor: Anchor

    exit_code = 0


def anchor(
    location: str,
    output: Path | None = None,
    private_key: Path | None = None,
    *,
    roots: bool = True,
    read_only: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> AnchorReport:
    """Anchor a store as it stands. Raises CorruptionError for a damaged end, ConfigError for a file that exists or a bad key."""
    if output is not None:
        require_outside(output)
        if os.path.lexists(output):
            raise ConfigError(f"{output} exists already: an older anchor proves more than a newer one, so it is kept; name another file")
    with existing_store(location, read_only=read_only, archives=archives) as store:
        made = store.anchor(roots=roots, progress=progress)
    if private_key is not None:
        made = sign(made, private_key)
    if output is not None:
        with os_errors(f"writing {output}"):
            replace_file(output, made.text().encode() + b"\n")
    return AnchorReport(location, None if output is None else str(output), made)


def kept_anchor(file: Path) -> Anchor:
    """The anchor in a file. Raises ConfigError if it is none, NewerFormatError, EngineError if it cannot be read."""
    with os_errors("reading the anchor"):
        content = file.read_bytes()
    return Anchor.parse(content, str(file))


def render(report: AnchorReport, paint: Paint) -> Iterator[str]:
    """The anchor itself, or a sentence about the file."""
    if report.output is None:
        yield report.anchor.text()
        return
    signature = report.anchor.signature
    signed = "not signed" if signature is None else f"signed by {signature.key}"
    heads = count_text(len(report.anchor.heads), "domain")
    yield f"{escape(report.output)}: {heads} of {escape(report.store)} at {format_us(report.anchor.made_us)}, {signed}"
