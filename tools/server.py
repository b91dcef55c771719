"""The HTTP application over the stores of a folder: one endpoint that carries every contract, and reads for people and tools."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from eventstore.adapters import rpc
from eventstore.adapters.namespaces import NamespaceError, Namespaces
from eventstore.adapters.rpc import RequestError, refusal_of
from eventstore.errors import ClosedError, EngineError, EventStoreError
from eventstore.tools.admission import Intake

_log = logging.getLogger("eventstore")

_JSON = "application/json"


class Service:
    """What is served: the stores below a folder."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._intake = Intake()
        self.under_way = 0
        self.answered: dict[int, int] = {}
        """Requests by the status that they were answered with."""

    def application(self) -> Starlette:
        """The application; who may call it is decided around it."""
        routes = [
            Route("/rpc", self._answered(self._rpc), methods=["POST"]),
            Route("/health", self._answered(self._health), methods=["GET"]),
            Route("/metrics", self._answered(self._metrics), methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_page})

    async def _rpc(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            raise RequestError(415, f"the content-type is {_JSON}")
        async with self._intake.body(request) as body:
            call = rpc.read_call(body)
            domain = call.contract.domain.name
            async with self._namespaces.using(call.namespace, domain) as namespace:
                return Response(rpc.result_of(await rpc.answer(call, namespace.backend)), media_type=_JSON)

    async def _health(self, request: Request) -> Response:
        store = await self._namespaces.own()
        halted = store.halted is not None
        return Response(b'{"ok":false}' if halted else b'{"ok":true}', 503 if halted else 200, media_type=_JSON)

    async def _metrics(self, request: Request) -> Response:
        lines = [
            "# HELP eventstore_server_requests_total Requests answered, by status.\n# TYPE eventstore_server_requests_total counter\n",
            *(f'eventstore_server_requests_total{{status="{status}"}} {count}\n' for status, count in sorted(self.answered.items())),
            "# HELP eventstore_server_under_way Requests not answered yet, this one among them.\n# TYPE eventstore_server_under_way gauge\n",
            f"eventstore_server_under_way {self.under_way}\n",
        ]
        store = await self._namespaces.own()
        return Response("".join(lines) + store.metrics(), media_type="text/plain; version=0.0.4")

    def _answered(self, page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """The page, whose every failure is an answer, and says no more than it should."""

        async def answered(request: Request) -> Response:
            self.under_way += 1
            try:
                response = await _response_of(page, request)
            finally:
                self.under_way -= 1
            self.answered[response.status_code] = self.answered.get(response.status_code, 0) + 1
            return response

        return answered


async def _response_of(page: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    try:
        return await page(request)
    except RequestError as error:
        return _refused(error.status, "RequestError", str(error))
    except NamespaceError as error:
        return _refused(400, "NamespaceError", str(error))
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except EventStoreError as error:
        if rpc.is_domain_error(error):
            return Response(refusal_of(type(error).__name__, str(error)), media_type=_JSON)
        return _failed(error)
    except Exception as error:  # noqa: BLE001  a bug of ours: its place is for the log, and nothing of it for the client
        _log.error("a request failed in an unforeseen way: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return _refused(500, "InternalError", "the server failed; its log says where")


def _failed(error: EventStoreError) -> Response:
    """The machine or the store could not: paths and the like are for the log, whether it may have happened for the client."""
    _log.error("%s: %s", type(error).__name__, error)
    again = isinstance(error, EngineError | ClosedError)
    outcome = f" (outcome: {error.outcome})" if isinstance(error, EngineError) else ""
    return _refused(503 if again else 500, type(error).__name__, f"the store could not do this{outcome}; the server's log says why")


def _refused(status: int, name: str, message: str) -> Response:
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    if status in (408, 413, 429):
        headers["connection"] = "close"  # what is left of the body is not read
    return Response(refusal_of(name, message), status, headers, _JSON)


async def _no_such_page(request: Request, error: Any) -> Response:
    return _refused(error.status_code, "RequestError", "no such page, or not by that method")
