"""Cut the demo's sample out of the whole recorded session: `python tests/demo_sample.py LIVE_JSONL_GZ`.

Writes tools/demo_data/session.jsonl.gz. What is cut, and why, is told in tools/demo_data/README.md.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from eventstore.tools.recording import Request, call_of, request_texts

SAMPLE = Path(__file__).resolve().parent.parent / "tools" / "demo_data" / "session.jsonl.gz"
LIMIT = 300_000
"""Bytes the sample may take: it travels in every installation."""

FIRST, LAST = 2026, 5710
"""The calls' own indices: from the writing of an LLM memory to its removal, 42 simulated minutes of trading later."""

NO_CANDLES_OF = ("DOGEUSDT", "LINKUSDT")
"""Their market data is left out to keep to the limit; everything about their positions stays."""


def cut(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The sample's lines: write and remove calls of the window, in order, context and arguments byte for byte."""
    for line in lines:
        text = line.decode()
        call = call_of(text)
        if call.i > LAST:
            return
        if call.i >= FIRST and call.req.writes and not _left_out(call.req):
            request = request_texts(text)
            kept = ",".join(f'"{name}":{request[name]}' for name in ("contract", "context", "method", "args"))
            yield f'{{"i":{call.i},"req":{{{kept}}}}}\n'.encode()


def _left_out(request: Request) -> bool:
    return request.contract == "Candle" and request.context["symbol"] in NO_CANDLES_OF


def sample_of(recording: Path) -> bytes:
    """The sample's text."""
    with gzip.open(recording, "rb") as lines:
        return b"".join(cut(lines))


def main(recording: Path) -> None:
    """Write the sample; the same recording always gives the same text."""
    packed = gzip.compress(sample_of(recording), 9, mtime=0)
    if len(packed) > LIMIT:
        raise SystemExit(f"the sample would take {len(packed)} bytes, {LIMIT} are allowed: cut it shorter")
    SAMPLE.write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
