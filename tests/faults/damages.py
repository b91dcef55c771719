"""Kinds of damage to a file's bytes, each made from a seed, so that it can be made again; and what a store makes of them."""

from __future__ import annotations

import logging
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import eventstore
from eventstore import recovery
from tests.faults.ledger import DOMAIN
from tests.faults.workers import Tell, adjust

SECTOR, PAGE = 512, 8_192


class Damage(msgspec.Struct, frozen=True):
    """One thing that happens to one file; what is left to chance follows from `seed`."""

    file: str
    kind: str
    offset: int
    seed: str

    def inflict(self, content: bytes) -> bytes:
        """The bytes afterwards: never the same ones."""
        chance = random.Random(f"{self.seed} {self.file} {self.kind} {self.offset}")
        damaged = KINDS[self.kind](content, self.offset, chance)
        # Zeros over zeros are no damage; whatever stands there, one of the two inversions changes something.
        return damaged if damaged != content else content[: self.offset] + bytes([content[self.offset] ^ 1]) + content[self.offset + 1 :]


def _over(content: bytes, start: int, new: bytes) -> bytes:
    end = min(start + len(new), len(content))
    return content[:start] + new[: end - start] + content[end:]


def bit(content: bytes, offset: int, chance: random.Random) -> bytes:
    """One bit turns over."""
    return _over(content, offset, bytes([content[offset] ^ 1 << chance.randrange(8)]))


def byte(content: bytes, offset: int, chance: random.Random) -> bytes:
    """One byte becomes another."""
    return _over(content, offset, bytes([content[offset] ^ chance.randrange(1, 256)]))


def sector_of_zeros(content: bytes, offset: int, chance: random.Random) -> bytes:
    """A sector was never written."""
    return _over(content, offset - offset % SECTOR, bytes(SECTOR))


def sector_of_noise(content: bytes, offset: int, chance: random.Random) -> bytes:
    """A sector holds somebody else's bytes."""
    return _over(content, offset - offset % SECTOR, chance.randbytes(SECTOR))


def page_of_zeros(content: bytes, offset: int, chance: random.Random) -> bytes:
    """A page was never written."""
    return _over(content, offset - offset % PAGE, bytes(PAGE))


def page_of_another_place(content: bytes, offset: int, chance: random.Random) -> bytes:
    """A page was written where another one belongs."""
    source = chance.randrange(len(content))
    return _over(content, offset - offset % PAGE, content[source - source % PAGE :][:PAGE])


def cut(content: bytes, offset: int, chance: random.Random) -> bytes:
    """The file ends here."""
    return content[:offset]


KINDS: dict[str, Callable[[bytes, int, random.Random], bytes]] = {
    kind.__name__: kind for kind in (bit, byte, sector_of_zeros, sector_of_noise, page_of_zeros, page_of_another_place, cut)
}


def inflict_each(tell: Tell, template: str, scratch: str, with_write: bool) -> None:
    """Inflict each damage listed in `scratch`/damages on a fresh copy of `template`; tell of each that is silent, and the counts.

    `with_write`: what seems to be whole is written, too, and read once more.
    """
    logging.getLogger("eventstore").setLevel(logging.ERROR)  # each ignored pointer file is a warning
    # What is copied is the product's business elsewhere; here 30,000 subprocesses would be most of the work.
    adjust(recovery, copy_files=lambda paths, folder: [shutil.copy2(path, folder) for path in paths if path.exists()])
    files = {str(path.relative_to(template)): path.read_bytes() for path in Path(template).rglob("*") if path.is_file()}
    expected = _everything(Path(template))
    counts: Counter[tuple[str, str, str]] = Counter()
    damages = msgspec.json.decode(Path(scratch, "damages").read_bytes(), type=list[Damage])
    folder = Path(scratch, "copy")
    for tried, damage in enumerate(damages):
        if tried % 25 == 0:
            tell(tried=tried)  # a sign of life
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damage.inflict(content) if name == damage.file else content)
        verdict = _verdict(folder, expected, with_write=with_write)
        if verdict in ("found", "neutral"):
            counts[damage.file, damage.kind, verdict] += 1
        else:
            tell(damage=msgspec.to_builtins(damage), verdict=verdict)
    for (file, kind, verdict), count in counts.items():
        tell(file=file, kind=kind, verdict=verdict, count=count)


def _everything(folder: Path) -> tuple[Any, ...]:
    """All that a store says: events, and what every key is now."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        return domain.head(), list(domain.events()), list(domain.items())


def _verdict(folder: Path, expected: tuple[Any, ...], *, with_write: bool) -> str:
    """found: refused by an error of ours. neutral: nothing is missing, and the store goes on as if nothing had been."""
    try:
        if _everything(folder) != expected:
            return "silent"
    except eventstore.EventStoreError:
        return _judged(folder)
    except Exception as error:  # noqa: BLE001  # anything else is no answer, and is reported
        return repr(error)
    return _verdict_of_a_write(folder, expected[1]) if with_write else "neutral"


def _verdict_of_a_write(folder: Path, before: list[eventstore.Event]) -> str:
    """What seems to be whole must be whole to the next writer too, and stay so."""
    try:
        with eventstore.open(folder) as store:
            store.domain(DOMAIN).write_value("after", 1)
    except eventstore.EventStoreError:
        return "found"
    try:
        _, events, _ = _everything(folder)
        with eventstore.open(folder, read_only=True) as store:
            whole = store.verify().ok
    except eventstore.EventStoreError as error:
        return f"found only after a write was acknowledged: {error!r}"
    return ("neutral" if whole else "found") if events[:-1] == before else "silent after a write"


def _judged(folder: Path) -> str:
    """What was refused for writing must not be called whole by verify; nor may verify fall over it."""
    try:
        with eventstore.open(folder, read_only=True) as store:
            return "found" if not store.verify().ok else "refused, but verify calls it whole"
    except eventstore.EventStoreError:
        return "found"
    except Exception as error:  # noqa: BLE001  # no answer, and reported
        return f"verify: {error!r}"
