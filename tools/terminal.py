"""Text on its way to a person: nothing that came out of an event reaches a terminal as a command to it.

Events hold what language models, exchanges and strangers wrote. `escape` and `json_safe` make that visible instead of
effective: `escape` for sentences and names, `json_safe` for JSON, which stays the same JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import msgspec
from rich.cells import cell_len, set_cell_size

from eventstore.codec import encode_key
from eventstore.errors import EventStoreError
from eventstore.model import Key

# Control characters (C0, DEL, C1), what reorders or hides text (bidi controls, invisible signs, tags), what ends a line
# (U+2028, U+2029), and lone surrogates, which no stream can encode. Joiners stay: emoji and Persian need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

Paint = Callable[[str, str], str]
"""`paint(text, style)`: the text in that style, or as it is where there are no colours."""

Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`, called as the work goes on; total 0 means that nobody knows yet."""

_ROWS_MEASURED = 500
_COLUMN_AT_MOST = 48

_STYLES = {"ok": "32", "warn": "33", "bad": "1;31", "dim": "2", "name": "36", "strong": "1", "old": "31", "new": "32"}


def escape(text: str) -> str:
    r"""`text` with everything a terminal would obey shown as \xNN, \uNNNN or \UNNNNNNNN; ordinary Unicode stays."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_safe(text: str) -> str:
    r"""JSON text on one line and safe to print, with the same meaning: unsafe characters become \uNNNN.

    In valid JSON a raw control character below U+0020 is white space between tokens, so a blank says the same.
    """
    return _UNSAFE.sub(_json_escaped, text)


def _json_escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return " "
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def to_json(report: Any) -> str:
    """A report as one line of JSON that is safe to print."""
    try:
        return json_safe(msgspec.json.encode(report).decode())
    except UnicodeEncodeError:
        # A name from the disk that is not UTF-8 holds lone surrogates: msgspec refuses them, json can say them.
        return json.dumps(msgspec.to_builtins(report))


def key_text(key: Key) -> str:
    """A key as it can be typed again: plain where that is unmistakable, else a JSON array; the log's own key is []."""
    if key == ():
        return "[]"
    if isinstance(key, str) and key and key[0] not in "[-" and key.isprintable() and not re.search(r"\s", key):
        return escape(key)
    try:
        return json_safe(encode_key(key))
    except EventStoreError:
        return escape(str(key))


def ansi(text: str, style: str) -> str:
    """The Paint of a terminal with colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def plain(text: str, style: str) -> str:
    """The Paint of everything else."""
    return text


def paint_for(stream: IO[str]) -> Paint:
    """Colours for a terminal that has them, unless NO_COLOR asks for none."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return ansi if wanted else plain


def width_of(stream: IO[str]) -> int | None:
    """How many cells a line may have: the width of a terminal, None for a pipe or a file, where nothing is cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def clip(text: str, width: int | None) -> str:
    """`text` cut to `width` cells, with a sign that it was; None cuts nothing."""
    if width is None or cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 1)).rstrip() + "…"


def table(rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> Iterator[str]:
    """Rows as aligned lines; the columns in `right` end at the same cell.

    The first rows decide how wide a column is, so that any number of them can pass through; a later one that is wider
    moves what stands behind it. No column but the last can push the others out of sight.
    """
    rest = iter(rows)
    first = list(itertools.islice(rest, _ROWS_MEASURED))
    widths = [min(max(map(cell_len, column)), _COLUMN_AT_MOST) for column in zip(*first, strict=True)]
    for row in itertools.chain(first, rest):
        cells = [
            " " * (width - cell_len(cell)) + cell if column in right else cell + " " * (width - cell_len(cell))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def size_text(size: int) -> str:
    """Bytes as a person reads them."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1_000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:.1f} TB"


def count_text(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 event`, `2,000 events`; `nouns` where an s is not enough."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


@contextmanager
def progress_on(stream: IO[str], *, wanted: bool = True) -> Iterator[Progress | None]:
    """A progress bar on `stream` while the block runs; None where nobody would see it."""
    if not wanted or not stream.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(escape(what), total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield report
