"""Who is let in, and how much he may send: the token, the names of this server, the bytes of bodies."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventstore.adapters.rpc import RequestError, refusal_of
from eventstore.errors import ConfigError
from eventstore.files import os_errors

MAX_BODY_BYTES = 32 * 2**20
"""Of one request: twice the largest value there is unless a store is told otherwise."""
MAX_HELD_BYTES = 4 * MAX_BODY_BYTES
"""Of all requests that are under way."""
BODY_S = 60.0
"""How long a body may take to arrive."""

MIN_TOKEN = 16
_TOKEN = re.compile(rf"[\x21-\x7e]{{{MIN_TOKEN},1024}}")
_FOREIGN = ", and not all of them are ASCII: some editors put a mark before the first"
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::\d{1,5})?")

_OPEN = "/health"
"""What says nothing but yes or no, and so needs no token: whoever restarts a server has none."""

_ALWAYS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"default-src 'none'")]


def read_token(file: Path | None) -> str | None:
    """The token of the file, else EVENTSTORE_TOKEN's, else none. Raises ConfigError for a weak one, or a file that others can read."""
    if file is None:
        said = os.environ.get("EVENTSTORE_TOKEN")
        where = "EVENTSTORE_TOKEN"
    else:
        said, where = _private_text(file).strip(), str(file)
    if said is not None and not _TOKEN.fullmatch(said):
        raise ConfigError(
            f"{where} holds {len(said)} characters{'' if said.isascii() else _FOREIGN}; a token is {MIN_TOKEN} to 1024 printable ones"
            " of ASCII without spaces; make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return said


def _private_text(file: Path) -> str:
    with os_errors(f"reading the token in {file}"):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise ConfigError(f"{file}: others can read the token, or it is no file; chmod 600 {file}")
            return opened.read(4_096).decode("ascii", "replace")


class Admission:
    """Refuses requests before anything of them is looked at: of pages in browsers that were led here, and of whoever lacks the token.

    A page can be led here by a name that its owner points at this machine (DNS rebinding); so only addresses, localhost and `hosts`
    are names of this server. What a page sends says so in Origin, what it shows, an image for one, in Sec-Fetch-Site; no page is ours.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_ALWAYS]
            await send(message)

        try:
            self._require(scope["path"], headers)
        except RequestError as error:
            refused = Response(refusal_of("Refused", str(error)), error.status, {"connection": "close"}, "application/json")
            if error.status == 401:
                refused.headers["www-authenticate"] = "Bearer"
            await refused(scope, receive, hardened)
            return
        await self._app(scope, receive, hardened)

    def _require(self, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        wanted = (b"host", b"origin", b"sec-fetch-site", b"authorization")
        hosts, origins, sites, given = ([value for name, value in headers if name == each] for each in wanted)
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
        if not self._is_own(host):
            raise RequestError(403, "this server is not called by that name: the Host is localhost, an address, or named by --allow-host")
        names = {name for name, _ in headers}
        if {
            b"content-length",
            b"transfer-encoding",
        } <= names:  # a proxy before this could see other requests
            raise RequestError(400, "a body has a content-length or a transfer-encoding, not both")
        if [value for name, value in headers if name == b"content-encoding" and value.lower() != b"identity"]:
            raise RequestError(415, "a body is sent as it is: no content-encoding is understood")
        foreign = origins and origins not in ([b"http://" + hosts[0]], [b"https://" + hosts[0]])
        if foreign or sites not in ([], [b"none"], [b"same-origin"]):  # none: somebody typed the address
            raise RequestError(403, "pages of other origins are not answered")
        if self._token is not None and path != _OPEN and not self._is_token(given):
            raise RequestError(401, "a token is needed: Authorization: Bearer TOKEN")

    def _is_own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].lower()
        return name == "localhost" or name in self._hosts or _is_address(name.strip("[]"))

    def _is_token(self, given: list[bytes]) -> bool:
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return hmac.compare_digest(token.strip(), self._token or b"") and scheme.lower() == b"bearer"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Intake:
    """Reads bodies, and knows how much of them is held at the moment."""

    def __init__(self) -> None:
        self._held = 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; counted until the block ends. Raises RequestError for one that is too large, too slow, or too much now."""
        declared = request.headers.get("content-length", "0")
        if not declared.isascii() or not declared.isdecimal() or len(declared) > 12 or int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        chunks: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(BODY_S):
                    await self._take(request, chunks)
            except TimeoutError:
                raise RequestError(408, f"the body took more than {BODY_S:.0f} s to arrive") from None
            yield b"".join(chunks)
        finally:
            self._held -= sum(map(len, chunks))

    async def _take(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self._held += len(chunk)
            chunks.append(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            if self._held > MAX_HELD_BYTES:
                raise RequestError(429, "too much is being sent at this moment; try again")


def _too_large() -> RequestError:
    return RequestError(413, f"the body is too large; at most {MAX_BODY_BYTES} bytes are allowed")
