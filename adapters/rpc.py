"""The wire protocol for clients in other languages: a request's bytes become a call of a contract's instance, its outcome bytes.

    {"ns", "rid", "contract", "context": {...}, "method", "args": [...]}
    {"ok": true, "result"} or {"ok": false, "error": {"name", "message"}}

Contracts, methods and their arguments are the rows of contracts.py, in the engine's spelling. What is to be kept goes from the request
to the store, and back, as the JSON text that it came as. Nothing here knows of HTTP but the status of what cannot be answered.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, NoReturn

import msgspec

from eventstore.adapters.contracts import CONTRACTS, Contract, Method, camel, require_text
from eventstore.adapters.instances import instance_class
from eventstore.adapters.shapes import Shape
from eventstore.adapters.shelf import Backend
from eventstore.errors import (
    ContractError,
    DuplicateEventError,
    EventStoreError,
    InvalidKeyError,
    InvalidValueError,
    NaiveTimeError,
)
from eventstore.values import MAX_DEPTH
from eventstore.writes import MAX_EVENT_ID_BYTES

MAX_ROWS = 10_000
"""Rows or candles in one call: ten times what the engine sends at most."""

MAX_ITEMS = 2**20
"""Arrays, objects, and what they hold, in one request: each takes many times the bytes in memory that it takes here."""

MAX_MESSAGE = 4_096
"""Characters of what a refusal says."""

_AROUND = 3
"""Levels of a request around a row: the request, its args, the list of rows."""

_MEMBERS: dict[str, type] = {"ns": str, "rid": str, "contract": str, "context": dict, "method": str, "args": list}

_WAIT = Method("wait_for_init", ("initial",), "wait_for_init")
_DISPOSE = Method("dispose", (), "dispose")

# Possessive: else the way back to every escape is kept. It may end with the body: else each quote of what is no JSON begins another search.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_TEXTS = re.compile(rb'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_NO_ITEM = bytes(set(range(256)) - set(b"[]{},"))
_PIECE = 2**16
"""Bytes that are searched at a time: others have the interpreter in between."""
_TURN = 1_000
"""Items that are gathered before others have theirs."""
_SPACE = re.compile(r"[ \t\n\r]*")


class RequestError(Exception):
    """What was sent is no call that could be made; `status` is what HTTP has for it. No store has heard of it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call(msgspec.Struct, frozen=True):
    """One call of a contract's instance."""

    namespace: str
    rid: str
    """Names it for ever within its namespace and contract: a write that is made again is the same write."""
    contract: Contract
    context: tuple[Any, ...]
    method: Method
    args: tuple[Any, ...]

    @property
    def needs_store(self) -> bool:
        """Whether it needs a store that can be written; a read of one that nobody has made yet finds nothing."""
        return self.method.writes or self.method is _WAIT


def read_call(body: bytes) -> Call:
    """The call that a request's body asks for. Raises RequestError; ContractError for arguments that are none of the method's."""
    text, request = _decoded(body)
    for name, kind in _MEMBERS.items():
        if not isinstance(request.get(name), kind):
            raise RequestError(400, f"{name} is {_KINDS[kind]}, and is missing or something else; a request has {', '.join(_MEMBERS)}")
    if len(request) != len(_MEMBERS):
        raise RequestError(400, f"a request has {', '.join(_MEMBERS)}, and nothing else")
    contract = CONTRACTS.get(request["contract"])
    if contract is None:
        raise RequestError(400, f"no contract {request['contract']!r}; there are {', '.join(CONTRACTS)}")
    methods = METHODS[contract.name]
    method = methods.get(request["method"])
    if method is None:
        raise RequestError(400, f"{contract.name} has no method {request['method']!r}; it has {', '.join(methods)}")
    rid = request["rid"]
    _require_rid(rid)
    texts = _elements(text, _place_of(text, "args"))
    return Call(request["ns"], rid, contract, _context(contract, request["context"]), method, _arguments(contract, method, texts))


_KINDS: dict[type, str] = {str: "a string", dict: "an object", list: "an array"}


def _methods(contract: Contract) -> dict[str, Method]:
    own = {camel(method.name): method for method in contract.methods}
    return {"waitForInit": _WAIT, **own, **({"dispose": _DISPOSE} if contract.disposable else {})}


METHODS: dict[str, dict[str, Method]] = {contract.name: _methods(contract) for contract in CONTRACTS.values()}
"""contract -> the methods of its instances, as the engine names them."""


async def answer(call: Call, backend: Backend) -> Any:
    """Make the call on a backend; gives what the method gives, a list for what it lists. Raises what it raises."""
    instance = _CLASSES[call.contract.name](*call.context, backend=backend)
    if call.method is _WAIT:
        return await instance.wait_for_init()
    if call.method is _DISPOSE:
        return None
    verb: Callable[..., Any] = getattr(instance, call.method.verb)
    if call.method.writes:
        return await verb(*call.args, event_id=call.rid)
    found = verb(*call.args)
    return await _gathered(found) if hasattr(found, "__aiter__") else await found


async def _gathered(listed: AsyncIterator[Any]) -> list[Any]:
    found: list[Any] = []
    async for item in listed:
        found.append(item)
        if len(found) % _TURN == 0:
            await asyncio.sleep(0)
    return found


def result_of(found: Any) -> bytes:
    """The reply to a call that was done."""
    return b'{"ok":true,"result":' + msgspec.json.encode(found) + b"}"


def refusal_of(name: str, message: str) -> bytes:
    """The reply to a call that was not done."""
    if len(message) > MAX_MESSAGE:  # it may quote all that was sent
        message = f"{message[:MAX_MESSAGE]}..."
    # Not by msgspec: it may quote half an emoji, too.
    return json.dumps({"ok": False, "error": {"name": name, "message": message}}, separators=(",", ":")).encode()


def is_domain_error(error: EventStoreError) -> bool:
    """Whether the answer is no, and will be no again: the caller's to handle. Else the machine, or the store, could not answer."""
    return isinstance(error, _DOMAIN_ERRORS)


_DOMAIN_ERRORS = (
    ContractError,
    DuplicateEventError,
    InvalidKeyError,
    InvalidValueError,
    NaiveTimeError,
)


def _nowhere(contract: Contract, context: tuple[Any, ...]) -> NoReturn:
    raise AssertionError(f"{contract.name}: whoever makes instances here names their backend")


_CLASSES: dict[str, Callable[..., Shape]] = {contract.name: instance_class(contract, _nowhere) for contract in CONTRACTS.values()}


# ---- from bytes to arguments


def _decoded(body: bytes) -> tuple[str, dict[str, Any]]:
    items = _outside_of_texts(body)
    brackets = items.translate(None, b",")
    if len(items) - len(brackets) // 2 > MAX_ITEMS:  # before anything is made of them
        raise RequestError(413, f"the body has too many arrays, objects and items of them; at most {MAX_ITEMS} are allowed")
    try:
        text = body.decode()
        request = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # no UTF-8, no JSON, or an integer of too many digits
        raise RequestError(400, f"the body is no JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError(400, "the body is no JSON object")
    _require_depth(brackets)
    return text, request


def _outside_of_texts(body: bytes) -> bytes:
    """The brackets and commas of JSON that are not part of a text."""
    found: list[bytes] = []
    at, size = 0, _PIECE
    while at < len(body):
        whole = _TEXTS.match(body, at, at + size)
        end = at if whole is None else whole.end()
        if end == at and at + size < len(body):  # a text that is longer than that
            size *= 2
            continue
        found.append(_STRING.sub(b"", body[at : end if end > at else None]).translate(None, _NO_ITEM))
        at, size = end if end > at else len(body), _PIECE
    return b"".join(found)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; JSON.stringify writes null")


def _require_depth(brackets: bytes) -> None:
    """Refuse what is nested deeper than any value may be. They are those of JSON: each round takes the innermost ones away."""
    for _ in range(MAX_DEPTH + _AROUND):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return
    raise _too_deep()


def _too_deep() -> RequestError:
    return RequestError(400, f"the body is nested too deep: a value has at most {MAX_DEPTH} levels")


def _require_rid(rid: str) -> None:
    try:
        size = len(rid.encode())
    except UnicodeEncodeError:
        raise RequestError(400, "rid holds a lone surrogate, which is no character") from None
    if not 0 < size <= MAX_EVENT_ID_BYTES:
        raise RequestError(400, f"rid has 1 to {MAX_EVENT_ID_BYTES} bytes, not {size}")


def _context(contract: Contract, given: dict[str, Any]) -> tuple[Any, ...]:
    names = [camel(name) for name in contract.context]
    if given.keys() != set(names):
        raise RequestError(400, f"the context of {contract.name} is {{{', '.join(names)}}}, not {{{', '.join(given)}}}")
    return tuple(given[name] for name in names)


def _arguments(contract: Contract, method: Method, texts: list[str]) -> tuple[Any, ...]:
    if method is _WAIT and len(texts) <= 1:
        return ()  # whether it is the first time is for the caller to know
    if len(texts) != len(method.parameters):
        expected = ", ".join(map(camel, method.parameters)) or "nothing"
        raise ContractError(f"{contract.name}.{camel(method.name)} takes {expected}, not {len(texts)} arguments")
    return tuple(_argument(contract, name, text) for name, text in zip(method.parameters, texts, strict=True))


def _argument(contract: Contract, name: str, text: str) -> Any:
    """One argument, by the name of its parameter: JSON text that is kept, a list of such, a moment, or what it says."""
    if name == "data":
        return msgspec.Raw(text.encode())
    if name in ("rows", "candles"):
        if not text.startswith("["):
            raise ContractError(f"{contract.name}: {name} is an array, not {text[:40]}")
        rows = _elements(text, 0)
        if len(rows) > MAX_ROWS:
            raise RequestError(413, f"{len(rows)} {name} in one call; at most {MAX_ROWS} are allowed")
        return json.loads(text) if name == "candles" else [msgspec.Raw(row.encode()) for row in rows]
    plain = json.loads(text)
    return _moment(contract, plain) if name == "when" else plain


def _moment(contract: Contract, given: object) -> datetime | None:
    if given is None:  # a Date that is none
        return None
    try:
        return datetime.fromisoformat(require_text(contract.name, "when", given))
    except ValueError:  # a ContractError is one, too
        raise ContractError(f"{contract.name}: when is a Date, as JSON.stringify writes it, not {given!r}") from None


# ---- the places of things in JSON text, of which is known that it is JSON

_next_value = json.JSONDecoder().raw_decode


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _elements(text: str, at: int) -> list[str]:
    """The texts of the elements of the array that begins at `at`."""
    found: list[str] = []
    at = _after_space(text, at + 1)
    while text[at] != "]":
        _, end = _next_value(text, at)
        found.append(text[at:end])
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def _place_of(text: str, name: str) -> int:
    """Where the value of a member of the outermost object begins; of the last one of that name, which is the one that counts."""
    place = -1
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        member, end = _next_value(text, at)
        value = _after_space(text, _after_space(text, end) + 1)
        if member == name:
            place = value
        _, end = _next_value(text, value)
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return place
