"""The HTTP application over the stores of a folder: one endpoint that carries every contract, and reads for people and tools."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from eventstore.adapters import rpc
from eventstore.adapters.namespaces import OWN, FolderGoneError, Namespace, NamespaceError, Namespaces
from eventstore.adapters.rpc import RequestError, refusal_of
from eventstore.adapters.shelf import LARGE_BYTES, DummyBackend
from eventstore.errors import ClosedError, CompactedError, EngineError, EventStoreError, HaltedError, LostIdsError, NotFoundError
from eventstore.tools import reads
from eventstore.tools.admission import Intake

READERS = 2
"""Pages that are read at a time, beside the calls of bots: a state as of long ago is a fold of the log."""

_JSON = "application/json"

_log = logging.getLogger("eventstore")

Answer = Callable[[Request], Awaitable[Response]]


class Service:
    """What is served: the stores below a folder."""

    def __init__(self, namespaces: Namespaces) -> None:
        self.namespaces = namespaces
        self._intake = Intake()
        self._readers = asyncio.Semaphore(READERS)
        self._verifying = False
        self.under_way = 0
        self.answered: Counter[int] = Counter()
        """Requests by the status that they were answered with."""

    def application(self) -> Starlette:
        """The application; who may call it is decided around it."""
        pages: dict[str, Answer] = {
            "/health": self._health,
            "/metrics": self._metrics,
            "/history": self._page(reads.history, reads.HISTORY, ("domain", "key")),
            "/state": self._page(reads.state, reads.STATE, ("domain",)),
            "/log": self._page(reads.log, reads.LOG, ("domain",)),
            "/verify": self._verify,
        }
        routes = [Route(path, self._answered(page), methods=["GET"]) for path, page in pages.items()]
        routes.append(Route("/rpc", self._answered(self._rpc), methods=["POST"]))
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page})

    async def _rpc(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            raise RequestError(415, f"the content-type is {_JSON}")  # which a form on a stranger's page cannot send
        async with self._intake.body(request) as body:
            try:
                call = rpc.read_call(body) if len(body) < LARGE_BYTES else await asyncio.to_thread(rpc.read_call, body)
                if not call.needs_store and not self.namespaces.is_there(call.namespace):
                    return Response(rpc.result_of(await rpc.answer(call, DummyBackend())), media_type=_JSON)
                async with self.namespaces.using(call.namespace, call.contract.domain.name) as namespace:
                    try:
                        found = await rpc.answer(call, namespace.backend)
                    except HaltedError:
                        await _resume(namespace)
                        raise
                    return Response(rpc.result_of(found), media_type=_JSON)
            except EventStoreError as error:
                if not rpc.is_domain_error(error):
                    raise
                return Response(refusal_of(type(error).__name__, str(error)), media_type=_JSON)

    def _page(self, page: Callable[..., Any], known: reads.Parameters, needed: Iterable[str]) -> Answer:
        async def read(request: Request) -> Response:
            given = reads.asked(request.query_params.multi_items(), known, needed=needed)
            name, domain = given.pop("ns", OWN), given.pop("domain")
            async with self.namespaces.using(name, domain, create=False) as namespace, self._readers:
                store = await namespace.backend.store()
                found = await asyncio.to_thread(page, store, domain, **given)
                return Response(await asyncio.to_thread(msgspec.json.encode, found), media_type=_JSON)

        return read

    async def _verify(self, request: Request) -> Response:
        given = reads.asked(request.query_params.multi_items(), reads.VERIFY)
        folder = self.namespaces.existing(given.get("ns", OWN))
        if self._verifying:
            raise RequestError(429, "another proof is under way; one at a time")
        self._verifying = True
        try:
            return Response(await reads.verify(folder, given.get("domain")), media_type=_JSON)
        finally:
            self._verifying = False

    async def _health(self, request: Request) -> Response:
        reads.asked(request.query_params.multi_items(), {})
        halted = await self.namespaces.halted()
        return Response(b'{"ok":false}' if halted else b'{"ok":true}', 503 if halted else 200, media_type=_JSON)

    async def _metrics(self, request: Request) -> Response:
        name = reads.asked(request.query_params.multi_items(), reads.METRICS).get("ns")
        store = await self.namespaces.running(OWN if name is None else name)
        own = self._counted() if name is None else ""
        return Response(own + await asyncio.to_thread(store.metrics), media_type="text/plain; version=0.0.4")

    def _counted(self) -> str:
        """What the server itself did and does, in Prometheus's text format."""
        statuses = [f'eventstore_server_requests_total{{status="{status}"}} {count}' for status, count in sorted(self.answered.items())]
        lines = [
            "# HELP eventstore_server_requests_total Requests answered, by status.",
            "# TYPE eventstore_server_requests_total counter",
            *statuses,
            "# HELP eventstore_server_under_way Requests that are not answered yet, this one among them.",
            "# TYPE eventstore_server_under_way gauge",
            f"eventstore_server_under_way {self.under_way}",
            "# HELP eventstore_server_namespaces Namespaces whose stores are open.",
            "# TYPE eventstore_server_namespaces gauge",
            f"eventstore_server_namespaces {self.namespaces.opened}",
        ]
        return "\n".join(lines) + "\n"

    def _answered(self, page: Answer) -> Answer:
        """The page, whose every failure is an answer that says no more than it should."""

        async def answered(request: Request) -> Response:
            self.under_way += 1
            try:
                response = await _response_of(page, request)
            finally:
                self.under_way -= 1
            self.answered[response.status_code] += 1
            return response

        return answered


async def _resume(namespace: Namespace) -> None:
    """Write again, if what stopped the store is gone: whoever asks again is answered. Nobody else here would say so, but a restart."""
    store = await namespace.backend.store()
    try:
        await asyncio.to_thread(store.resume)
    except EventStoreError as error:
        _log.warning("namespace %r stays halted: %s", namespace.name, error)


async def _response_of(page: Answer, request: Request) -> Response:
    try:
        return await page(request)
    except RequestError as error:
        return _refused(error.status, "RequestError", str(error))
    except FolderGoneError as error:  # until somebody decides
        return _refused(503, "FolderGoneError", str(error))
    except NamespaceError as error:
        return _refused(400, "NamespaceError", str(error))
    except NotFoundError:  # its sentence is for whoever may see the folder
        return _refused(404, "NotFoundError", "no such domain, or no such namespace")
    except LostIdsError as error:  # until somebody accepts the loss
        return _failed(error)
    except CompactedError as error:  # a retry, too, whose first outcome would have to be read there
        message = f"what is asked for, or was done under this rid, is in an archive; everything after position {error.floor} is here"
        return _refused(410, "CompactedError", message)
    except asyncio.CancelledError:  # nothing else cancels a request; what it had to write may have been written
        return _refused(503, "StoppedError", "the server was told to stop, and waits no longer; ask again")
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except EventStoreError as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001  a bug of ours: its place is for the log, and nothing of it for the client
        _log.error("a request failed in an unforeseen way: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return _refused(500, "InternalError", "the server failed; its log says where")


def _failed(error: EventStoreError) -> Response:
    """The machine or the store could not: paths and the like are for the log, whether it may have happened for the client."""
    _log.error("%s: %s", type(error).__name__, error)
    outcome = f" (outcome: {error.outcome})" if isinstance(error, EngineError) else ""
    status = 503 if isinstance(error, EngineError | ClosedError) else 500
    return _refused(status, type(error).__name__, f"the store could not do this{outcome}; the server's log says why")


def _refused(status: int, name: str, message: str) -> Response:
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    if status in (408, 413, 415, 429):
        headers["connection"] = "close"  # what is left of the body is not read
    return Response(refusal_of(name, message), status, headers, _JSON)


async def _no_such_page(request: Request, error: Any) -> Response:
    return _refused(error.status_code, "RequestError", "no such page, or not by that method")
