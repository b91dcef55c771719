"""What changed between two JSON values, place by place. Numbers are compared and shown digit by digit, as they stand in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

import msgspec

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ALIGN_AT_MOST = 250_000
"""Items of one list times items of the other, up to which insertions are looked for; beyond, items are compared in turn."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place that differs: `old` is missing where something was added, `new` where it was taken away."""

    path: str
    old: msgspec.Raw | None = None
    new: msgspec.Raw | None = None


class _Number(str):
    """A number as it is written: 1.0 is not 1 here, and no digit is lost."""


def differences(old: str | None, new: str | None) -> list[Change]:
    """The changes from one JSON text to another, in the order of the old one; None means that there is no value.

    Empty if both say the same, in whatever spelling: white space, the order of members and escapes do not count.
    """
    if old is None or new is None:
        return [Change(".", _raw(old), _raw(new))] if old != new else []
    return list(_compare("", _parse(old), _parse(new)))


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_Number, parse_float=_Number)


def _compare(path: str, old: Any, new: Any) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _member(f"{path}.{_name(name)}", old, new, name)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _compare_lists(path, old, new)
    elif not _same(old, new):
        yield Change(path or ".", _raw(_text(old)), _raw(_text(new)))


def _member(path: str, old: dict[str, Any], new: dict[str, Any], name: str) -> Iterator[Change]:
    if name not in new:
        yield Change(path, old=_raw(_text(old[name])))
    elif name not in old:
        yield Change(path, new=_raw(_text(new[name])))
    else:
        yield from _compare(path, old[name], new[name])


def _compare_lists(path: str, old: list[Any], new: list[Any]) -> Iterator[Change]:
    """Items that were inserted or taken out do not make every later item a change."""
    path = path or "."
    for start, end, new_start, new_end in _unequal(old, new):
        paired = min(end - start, new_end - new_start)
        for offset in range(paired):
            yield from _compare(f"{path}[{new_start + offset}]", old[start + offset], new[new_start + offset])
        for index in range(start + paired, end):
            yield Change(f"{path}[{index}]", old=_raw(_text(old[index])))
        for index in range(new_start + paired, new_end):
            yield Change(f"{path}[{index}]", new=_raw(_text(new[index])))


def _unequal(old: list[Any], new: list[Any]) -> Iterator[tuple[int, int, int, int]]:
    """The ranges in which the lists differ: start and end in the old one, start and end in the new one."""
    before, after = [_text(item) for item in old], [_text(item) for item in new]
    if len(before) * len(after) > _ALIGN_AT_MOST:
        yield 0, len(before), 0, len(after)
        return
    for kind, start, end, new_start, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            yield start, end, new_start, new_end


def _same(old: Any, new: Any) -> bool:
    # A number is a str underneath: "1" and 1 must not pass as equal.
    return type(old) is type(new) and bool(old == new)


def _name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=not _encodable(name))


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _text(value: Any) -> str:
    """A parsed value as compact JSON."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_text(name)}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not _encodable(value))
    return json.dumps(value)
