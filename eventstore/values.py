"""A value in and out: validated JSON text, stored exactly as received and never encoded again."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import json
import math
import operator
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NoReturn

import msgspec

from eventstore.errors import ConfigError, InvalidValueError

MAX_DEPTH = 64
MAX_INT_DIGITS = 4_300
MAX_VALUE_BYTES = 16 * 2**20
LARGE = 65_536
"""Characters of a value up to which an event loop may encode it, check it and decode it in passing, without anybody noticing."""

_INT_LIMIT = 10**MAX_INT_DIGITS

_encode = msgspec.json.Encoder().encode
_encode_in_order = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


def encode_value(value: Any, declared: Any = Any, *, max_bytes: int = MAX_VALUE_BYTES) -> str:
    """The JSON text that is stored for `value`.

    Plain data, msgspec Structs and dataclasses are encoded; msgspec.Raw is JSON text already and stays byte for byte.
    `declared` is the type of the domain's values. What would read back as something else is refused:
    NaN, integers as dict keys, bytes, sets, times in plain data. Raises InvalidValueError, which names the place.
    """
    if isinstance(value, msgspec.Raw):
        return _encode_raw(bytes(value), declared, max_bytes)
    return _bounded_text(_proven(value, declared) or _encode_slowly(value, declared), max_bytes)


def take_value(value: Any, declared: Any = Any, *, max_bytes: int = MAX_VALUE_BYTES, limit: int = LARGE) -> str | Callable[[], str]:
    """encode_value() of more than `limit` characters in two parts: what takes long is left to be done by calling what this gives.

    The value is taken as it is now: what is left looks at nothing that the caller may change. What holds the interpreter in any
    thread, as it is one call into C, is done at once; so is what walks over objects, which only their owner may look at.
    """
    if isinstance(value, msgspec.Raw):
        raw = bytes(value)
        return functools.partial(_encode_raw, raw, declared, max_bytes) if len(raw) > limit else _encode_raw(raw, declared, max_bytes)
    encoded = _proven(value, declared)
    if not encoded:
        copied = _copied(value, limit)
        if copied is not None:
            return functools.partial(encode_value, copied, declared, max_bytes=max_bytes)
        encoded = _encode_slowly(value, declared)
    if len(encoded) > limit and len(encoded) > 2 * MAX_DEPTH:
        return functools.partial(_bounded_text, encoded, max_bytes)
    return _bounded_text(encoded, max_bytes)


def _copied(value: Any, limit: int) -> Any:
    """Plain data of more than `limit` characters, tuples and all, as nobody else can change it; None for anything else. All in C."""
    try:
        if len(_encode(value)) <= limit:
            return None
        copied = msgspec.to_builtins(value, builtin_types=_NOT_JSON)
        return copied if copied == value else None  # of a set it makes a list, which is not equal
    except Exception:  # noqa: BLE001  whatever it was, the slow way says what is wrong
        return None


def _encode_raw(raw: bytes, declared: Any, max_bytes: int) -> str:
    text = _checked_text(raw, max_bytes)
    if declared is not Any and declared is not msgspec.Raw:
        decode_value(text, declared)
    return text


def _proven(value: Any, declared: Any) -> bytes:
    """The JSON of `value` if it reads back as just that; nothing where only the slow way can tell, or say what is wrong."""
    # The proof that nothing is lost is to read it back: in C, and cheaper than any walk over the value in Python.
    try:
        if declared is Any:
            encoded = _encode(value)
            exact = _decode(encoded) == value
        else:
            encoded = _encoded(value, declared)
            exact = _comparison(declared)(_decoder(declared)(encoded), value)
    except Exception:  # noqa: BLE001  whatever it was, the slow way takes it or says what is wrong
        return b""
    return encoded if exact else b""


def _bounded_text(encoded: bytes, max_bytes: int) -> str:
    require_size(len(encoded), max_bytes)
    text = encoded.decode()
    if len(text) > 2 * MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(decode_value(text))
    return text


def require_size(size: int, max_bytes: int) -> None:
    """Raise InvalidValueError for a value whose JSON text takes more than `max_bytes`."""
    if size > max_bytes:
        raise InvalidValueError(f"$: the value takes {size} bytes, at most {max_bytes} are allowed (max_value_bytes)")


def decode_value(text: str, declared: Any = Any) -> Any:
    """What `text` says: plain data, `declared` if that is a type, the text itself for msgspec.Raw.

    Raises InvalidValueError if the text is not JSON, or not of the declared type, ConfigError if that is no type.
    """
    if declared is Any:
        try:
            return _decode(text)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            return _decode_slowly(text)
        except TypeError:
            _require_text(text)
            raise
    _require_text(text)
    if declared is msgspec.Raw:
        return msgspec.Raw(text.encode())
    try:
        return _decoder(declared)(text)
    except msgspec.ValidationError as error:
        raise InvalidValueError(f"$: not a {_name(declared)}: {error}") from error
    except TypeError as error:
        raise ConfigError(f"values cannot be read as {declared!r}: {error}") from error
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return _converted(_decode_slowly(text), declared)


def _require_text(text: object) -> None:
    if not isinstance(text, str):
        raise InvalidValueError(f"$: a value is decoded from JSON text, not from {type(text).__name__}")


def is_json(text: str) -> bool:
    """Whether a stored text is JSON, whatever it says."""
    try:
        _decode_raw(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        try:
            _parsed(text, str)  # no integer is made, which the interpreter may be told to refuse
        except InvalidValueError:
            return False
    return True


def may_be_json(text: str) -> bool:
    """Whether other readers may take a text that was refused here: JSON knows no most digits of an integer, and no greatest depth."""
    try:
        json.loads(text, parse_constant=_no_constant, parse_int=str)
    except RecursionError:
        return True
    except (InvalidValueError, json.JSONDecodeError):
        return False
    return True


def _decode_slowly(text: str) -> Any:
    """msgspec refuses what JSON allows: the escape of half an emoji, which JSON.stringify writes, and very long integers."""
    return _parsed(text, _integer)


def _parsed(text: str, parse_int: Callable[[str], Any]) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=parse_int)
    except json.JSONDecodeError as error:
        raise _no_json(error) from error
    except RecursionError as error:
        raise InvalidValueError(f"$: nested deeper than {MAX_DEPTH} levels") from error


def _no_json(error: json.JSONDecodeError) -> InvalidValueError:
    found = f"{error.doc[error.pos]!r} at character {error.pos}" if error.pos < len(error.doc) else "the end of the text"
    return InvalidValueError(f"$: not JSON: {error.msg}, found {found}")


def _converted(plain: Any, declared: Any) -> Any:
    try:
        return msgspec.convert(plain, declared)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidValueError(f"$: not a {_name(declared)}: {error}") from error


def _encoded(value: Any, declared: Any) -> bytes:
    # A set has another order in every process, and a retry must be the same text. Objects are not to be sorted for it,
    # so this is for types with sets alone.
    if declared is not Any and declared is not msgspec.Raw and _holds_sets(declared):
        return _encode_in_order(value)
    return _encode(value)


@functools.lru_cache(maxsize=256)
def _holds_sets(declared: Any) -> bool:
    """Whether a value of this type may hold a set anywhere."""
    return any(isinstance(info, msgspec.inspect.SetType | msgspec.inspect.FrozenSetType) for info in _types_in(declared))


@functools.lru_cache(maxsize=256)
def _comparison(declared: Any) -> Callable[[Any, Any], bool]:
    """What tells whether two values of this type say the same: their own equality, if it looks at every field for certain."""
    return operator.eq if all(map(_compares_all, _types_in(declared))) else _say_the_same


def _compares_all(info: Any) -> bool:
    base: type = tuple if isinstance(info, msgspec.inspect.NamedTupleType) else msgspec.Struct
    if isinstance(info, msgspec.inspect.StructType | msgspec.inspect.NamedTupleType):
        return bool(info.cls.__eq__ is base.__eq__)
    return not isinstance(info, msgspec.inspect.DataclassType)  # attrs classes too; any field may be left out of the equality of these


def _say_the_same(back: Any, value: Any) -> bool:
    return _difference(back, value, "$") is None


def _difference(back: Any, value: Any, path: str) -> str | None:
    """The first place where what was read back says something else than `value`. Slower than their own equality, which may be anything."""
    names, read = _fields_of(value), _fields_of(back)
    if names is None and read is not None:  # an object for a Struct
        same = bool(msgspec.to_builtins(back, str_keys=True) == value)
    elif names is not None and read is None:  # the declared type leaves open what stands there
        same = bool(back == _plain(value, path))
    elif names is not None:
        pairs = ((f"{path}.{name}", getattr(back, name), getattr(value, name)) for name in names)
        return _first_difference(pairs) if type(back) is type(value) else path
    elif isinstance(value, list | tuple) and isinstance(back, list | tuple) and len(back) == len(value):
        return _first_difference((f"{path}[{index}]", *pair) for index, pair in enumerate(zip(back, value, strict=True)))
    elif isinstance(value, dict) and isinstance(back, dict) and back.keys() == value.keys():
        return _first_difference((f"{path}.{key}", back[key], value[key]) for key in value)
    else:
        same = bool(back == value)
    return None if same else path


def _first_difference(pairs: Iterable[tuple[str, Any, Any]]) -> str | None:
    return next((found for path, back, value in pairs if (found := _difference(back, value, path)) is not None), None)


def _fields_of(value: Any) -> Sequence[str] | None:
    """The names of the fields of a Struct, a dataclass or an attrs class; None for anything else."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _types_in(declared: Any) -> Iterator[Any]:
    """What msgspec says of every type that a value of this type may hold anywhere."""
    seen: set[int] = set()
    waiting: list[Any] = [msgspec.inspect.type_info(declared)]
    while waiting:
        info = waiting.pop()
        if isinstance(info, tuple | list):
            waiting.extend(info)
        elif isinstance(info, msgspec.Struct) and id(info) not in seen:
            seen.add(id(info))
            yield info
            waiting.extend(getattr(info, field) for field in info.__struct_fields__)


@functools.lru_cache(maxsize=256)
def _decoder(declared: Any) -> Any:
    return msgspec.json.Decoder(declared).decode


def _name(declared: Any) -> str:
    return getattr(declared, "__name__", str(declared))


def _encode_slowly(value: Any, declared: Any) -> bytes:
    """Take what is plainly equal (a tuple for a list) or hard to say (half an emoji), and name what is not JSON."""
    typed = declared is not Any and declared is not msgspec.Raw
    try:
        order: Literal["deterministic"] | None = "deterministic" if typed and _holds_sets(declared) else None
        plain = _plain(msgspec.to_builtins(value, str_keys=True, order=order) if typed else value, "$")
        try:
            encoded = _encode(plain)
        except UnicodeEncodeError:
            encoded = json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()
        text = encoded.decode()
        differs = None if decode_value(text) == plain else "$"
        if typed and differs is None:
            differs = _difference(decode_value(text, declared), value, "$")
    except InvalidValueError:
        raise
    except RecursionError:
        raise InvalidValueError(f"$: nested deeper than {MAX_DEPTH} levels, or in itself") from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidValueError(f"$: {_name(type(value))}: {error}") from error
    if differs is not None:
        raise InvalidValueError(f"{differs}: what stands there in this {_name(type(value))} would read back as something else")
    return encoded


_NOT_JSON = (bytes, bytearray, datetime.datetime, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)
"""What msgspec would turn into text in silence; left as it is, so that it can be named."""


def _plain(value: Any, path: str) -> Any:
    """`value` as the JSON that stands for it, or InvalidValueError naming the place that has none."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) >= _INT_LIMIT:
            raise InvalidValueError(f"{path}: an integer of more than {MAX_INT_DIGITS} digits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidValueError(f"{path}: {value} is not JSON; write null, or a string")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidValueError(f"{path}: the key {key!r} is {_name(type(key))}; JSON objects have string keys")
        return {key: _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, msgspec.Struct) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return _plain(msgspec.to_builtins(value, builtin_types=_NOT_JSON), path)
    raise InvalidValueError(f"{path}: {_name(type(value))} is not JSON; convert it, or declare the domain's type: Domain(name, value=...)")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children.extend(item.values())
            elif isinstance(item, list):
                children.extend(item)
        if any(isinstance(item, dict | list) for item in level):
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidValueError(f"$: nested deeper than {MAX_DEPTH} levels")
        level = children


def _checked_text(encoded: bytes, max_bytes: int) -> str:
    """JSON text from outside: everything another reader could understand differently is refused."""
    require_size(len(encoded), max_bytes)
    try:
        text = encoded.decode()
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"$: not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_bounded)
    except RecursionError:
        raise InvalidValueError(f"$: nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise _no_json(error) from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidValueError(f"$: the member {name!r} stands twice in one object; readers would disagree which counts")
            seen.add(name)
    return members


def _no_constant(name: str) -> NoReturn:
    raise InvalidValueError(f"$: {name} is not JSON; write null, or a string")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidValueError(f"$: {digits[:40]} is beyond what a double holds")
    return number


def _bounded(digits: str) -> str:
    if len(digits.lstrip("-")) > MAX_INT_DIGITS:
        raise InvalidValueError(f"$: an integer of {len(digits)} digits; at most {MAX_INT_DIGITS} are allowed")
    return digits


def _integer(digits: str) -> int:
    try:
        return int(_bounded(digits))
    except InvalidValueError:
        raise
    except ValueError:
        allowed = f"{sys.get_int_max_str_digits()} (sys.set_int_max_str_digits); raise that, or read the value as text: msgspec.Raw"
        raise InvalidValueError(f"$: an integer of {len(digits)} digits, and this process converts at most {allowed}") from None
