"""What strangers may try on a server: none of it reaches a store, none of it brings the server down, nothing is told but no."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from eventstore.adapters.contracts import CONTRACTS, camel
from eventstore.errors import ConfigError
from eventstore.tools.admission import read_token
from tests.tools.served import WAIT_S, Client, Server, refused

TOKEN = "correct-horse-battery-staple"
STATE = {"signalId": "s1", "bucketName": "b"}
CANDLE = {"symbol": "B", "interval": "1m", "exchangeName": "x"}
WRITE = {
    "ns": "",
    "rid": "r",
    "contract": "State",
    "context": STATE,
    "method": "writeStateData",
    "args": [{"n": 1}, "2024-03-04T12:00:00.000Z"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all of them: whatever was tried before, the next is answered."""
    folder = tmp_path_factory.mktemp("served")
    with Server(folder / "data") as running:
        yield running
        client = running.client()
        assert client.get("/health").json() == {"ok": True}
        assert "Traceback" not in running.stderr


@pytest.fixture
def client(server: Server) -> Client:
    return server.client()


def files(server: Server) -> list[str]:
    """All there is beside and below the served folder."""
    return sorted(str(path.relative_to(server.folder.parent)) for path in server.folder.parent.rglob("*"))


def body_of(**changed: Any) -> bytes:
    """A write, with something else in it."""
    return json.dumps({**WRITE, **changed}).encode()


# ---- malformed and too much


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b"null", 400),
        (b'{"ns":NaN}', 400),
        (b"9" * 5_000, 400),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'"' + b'\\"' * 200_000, 400),
        (body_of(args=[json.loads("[" * 80 + "]" * 80), "2024-03-04T12:00:00.000Z"]), 400),
        (body_of(more=1), 400),
        (body_of(rid=""), 400),
        (body_of(rid="r" * 1_025), 400),
        (body_of(rid="\ud83d"), 400),
        (body_of(rid=7), 400),
        (body_of(ns=7), 400),
        (body_of(ns="\ud83d"), 400),
        (body_of(ns="x" * 193), 400),
        (body_of(ns="/" * 65), 400),
        (body_of(args={}), 400),
        (body_of(contract="Nothing"), 400),
        (body_of(contract="__class__"), 400),
        (body_of(method="__init__"), 400),
        (body_of(method="write"), 400),
        (body_of(method="read_state_data"), 400),
        (body_of(context={}), 400),
        (body_of(context={**STATE, "more": 1}), 400),
        (body_of(contract="Log", context={}, method="writeLogData", args=[[{"id": "x"}] * 10_001]), 413),
    ],
    ids=lambda given: repr(given)[:40],
)
def test_what_is_no_call_is_refused_before_any_store(server: Server, client: Client, body: bytes, status: int) -> None:
    before = files(server)
    reply = client.post(body)
    assert (reply.status, reply.json()["ok"]) == (status, False)
    assert files(server) == before
    assert str(server.folder.parent) not in reply.body.decode()


@pytest.mark.parametrize(
    "changed",
    [
        {"args": []},
        {"args": [1, 2, 3]},
        {"args": [1, "yesterday"]},
        {"args": [1, 7]},
        {"args": [1, "2024-03-04T12:00:00"]},
        {"context": {"signalId": 1, "bucketName": "b"}},
        {"context": {"signalId": "\ud83d", "bucketName": "b"}},
        {"context": {"signalId": "\0", "bucketName": "b"}},
        {"context": {"signalId": "x" * 2_000, "bucketName": "b"}},
        {"contract": "Log", "context": {}, "method": "writeLogData", "args": [7]},
        {"contract": "Log", "context": {}, "method": "writeLogData", "args": [[{"no": "id"}]]},
        {
            "contract": "Candle",
            "context": {"symbol": "B", "interval": "1m", "exchangeName": "x"},
            "method": "writeCandlesData",
            "args": [[1]],
        },
        {
            "contract": "Candle",
            "context": {"symbol": "B", "interval": "7m", "exchangeName": "x"},
            "method": "readCandlesData",
            "args": [1, 0, 0],
        },
    ],
    ids=lambda given: repr(given)[:60],
)
def test_what_a_contract_refuses_is_a_domain_error(server: Server, client: Client, changed: dict[str, Any]) -> None:
    reply = client.post(body_of(**changed))
    assert (reply.status, reply.json()["ok"]) == (200, False)
    assert reply.json()["error"]["name"] in ("ContractError", "InvalidKeyError", "InvalidValueError", "NaiveTimeError")
    assert str(server.folder.parent) not in reply.body.decode()


def test_a_number_that_is_none_is_not_kept(client: Client) -> None:
    for number in (b"1e400", b"-1e400"):
        reply = client.post(body_of().replace(b'"n": 1', b'"n": ' + number))
        assert reply.json()["error"]["name"] == "InvalidValueError"


@pytest.mark.parametrize("hostile", ["../../x", "..", "/etc/passwd", "a/b", "~", "%2e%2e", "C:\\x", "ns", "logs", ".", "\u202e"])
def test_no_id_leaves_its_place(server: Server, client: Client, hostile: str) -> None:
    """In the namespace, in every part of every context, as an id, as a rid: it is data, and never a path."""
    outside = [name for name in files(server) if not name.startswith("data")]
    for contract in CONTRACTS.values():
        context = {camel(name): False if name == "backtest" else hostile for name in contract.context}
        if contract.shape == "series":
            context["interval"] = "1m"
        for method in contract.methods:
            args = [_argument(name, hostile) for name in method.parameters]
            place = {"ns": hostile, "rid": f"{hostile}-{method.name}", "contract": contract.name, "context": context}
            request = {**place, "method": camel(method.name), "args": args}
            reply = client.post(request)
            assert (reply.status, reply.json()["ok"]) == (200, True), (request, reply)
    assert [name for name in files(server) if not name.startswith("data")] == outside
    below = {name.split("/")[1] for name in files(server) if name.count("/") == 1}
    assert below <= {"logs", "ns", "owners", "store.json", "store.lock"}


def _argument(name: str, hostile: str) -> Any:
    known: dict[str, Any] = {"when": "2024-03-04T12:00:00.000Z", "data": {"id": hostile}, "rows": [{"id": hostile}], "candles": []}
    return known.get(name, 0 if name in ("limit", "since_timestamp", "until_timestamp") else hostile)


def test_a_body_that_is_no_json_by_its_type_is_refused(client: Client) -> None:
    """What a form on a page could send without asking first."""
    reply = client.send("POST", "/rpc", body_of(), {"Content-Type": "text/plain"})
    assert reply.status == 415


# ---- who is let in


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil", "", "[::1", "2130706433"],
)
def test_a_name_that_was_pointed_here_is_not_answered(server: Server, client: Client, host: str) -> None:
    """DNS rebinding: the page that a browser loaded from that name may not read what this machine serves."""
    reply = client.send("GET", "/health", headers={"Host": host})
    assert (reply.status, b'ok":true' in reply.body) == (403, False)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:9", "192.0.2.1"])
def test_its_own_names_are_answered(client: Client, host: str) -> None:
    assert client.send("GET", "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1.evil.example"])
def test_pages_of_other_origins_are_not_answered(server: Server, client: Client, origin: str) -> None:
    before = files(server)
    reply = client.send("POST", "/rpc", body_of(ns="page"), {"Origin": origin})
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers
    assert files(server) == before
    own = client.send("GET", "/health", headers={"Origin": f"http://127.0.0.1:{server.port}"})
    assert own.status == 200


def test_what_pages_of_others_show_is_not_answered(client: Client) -> None:
    """An image in a page is asked for without an Origin; a proof would read all there is for it."""
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.send("GET", "/verify", headers={"Sec-Fetch-Site": site}).status == status
        client.close()  # whom it refuses, it hangs up on


def test_what_is_sent_is_not_to_be_kept_or_guessed_at(client: Client) -> None:
    for path in ("/health", "/log", "/none"):
        headers = client.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_who_lacks_the_token_is_not_let_in(tmp_path: Path) -> None:
    with Server(tmp_path / "data", token=TOKEN) as server:
        knowing = server.client()
        assert knowing.post(WRITE).json() == {"ok": True, "result": None}
        stranger = Client(server.url)
        wrong = [None, "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}"]
        for given in wrong:
            headers = {} if given is None else {"Authorization": given}
            for method, path in (("POST", "/rpc"), ("GET", "/log?domain=state"), ("GET", "/metrics"), ("GET", f"/log?token={TOKEN}")):
                reply = stranger.send(method, path, body_of() if method == "POST" else None, headers)
                assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), given
                stranger.close()
        assert stranger.get("/health").json() == {"ok": True}
        stranger.close()
        assert len(knowing.get("/log?domain=state").json()["items"]) == 1
        assert TOKEN not in " ".join(server.command)
        server.stop()
        assert TOKEN not in server.stderr


def test_the_token_is_read_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o640)
    answer = refused(tmp_path / "data", "--token-file", file)
    assert (answer.code, answer.error()["error"]) == (3, "ConfigError")
    assert "others can read the token" in answer.err
    file.chmod(0o600)
    with Server(tmp_path / "data", "--token-file", file) as server:
        assert server.client().get("/log?domain=state").status == 401
        assert server.client(token=TOKEN).get("/log?domain=state").status == 404
    file.write_bytes(TOKEN.encode() + b"\r\n")
    assert read_token(file) == TOKEN
    for text, found in (
        (b"\xef\xbb\xbf" + TOKEN.encode(), "not all of them are ASCII"),
        (b"", "holds 0 characters"),
        (b"\n", "holds 0 characters"),
    ):
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=found):
            read_token(file)
    file.write_text("short")
    assert "16 to 1024" in refused(tmp_path / "data", "--token-file", file).err
    assert refused(tmp_path / "data", "--token-file", tmp_path / "none").code == 2
    assert refused(tmp_path / "data", "--token-file", tmp_path).code == 2


def test_a_token_that_was_to_come_from_the_environment_and_is_empty_is_not_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `EVENTSTORE_TOKEN=$(cat missing)`: the server would ask nobody for one."""
    monkeypatch.delenv("EVENTSTORE_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("EVENTSTORE_TOKEN", "")
    with pytest.raises(ConfigError, match="EVENTSTORE_TOKEN holds 0 characters"):
        read_token(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_this_machine_takes_a_token_and_a_word(tmp_path: Path, host: str) -> None:
    alone = refused(tmp_path / "data", "--host", host)
    assert (alone.code, "name a token" in alone.err) == (3, True)
    assert "name a token" in refused(tmp_path / "data", "--host", host, "--insecure").err
    assert "--insecure" in refused(tmp_path / "data", "--host", host, token=TOKEN).err
    assert not (tmp_path / "data").exists()


def test_beyond_this_machine_other_names_are_told(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--host", "0.0.0.0", "--insecure", "--allow-host", "store.example", token=TOKEN) as server:
        client = Client(f"http://127.0.0.1:{server.port}", TOKEN)
        assert client.send("GET", "/metrics", headers={"Host": "store.example:80"}).status == 200
        assert client.send("GET", "/metrics", headers={"Host": "evil.example"}).status == 403
        client.close()


# ---- slow, many, gone


def _connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that waits two seconds for a head, and not ten."""
    with Server(tmp_path_factory.mktemp("hurried") / "data").sooner(HEAD_S=2) as running:
        yield running


def test_slow_and_broken_clients_keep_nobody_waiting(hurried: Server) -> None:
    """A head that never ends, a body that never comes, an answer that nobody reads, a client that left: the next one is answered."""
    client = hurried.client()
    head = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    begun = [b"", b"PO", head, head + b"Content-Length: 100\r\n\r\n{", b"\x16\x03\x01\x02\x00", head + b"Content-Length: 1e3\r\n\r\n"]
    with contextlib.ExitStack() as held:
        pipes = []
        for sent in begun:
            pipe = held.enter_context(_connected(hurried))
            pipe.sendall(sent)
            pipes.append(pipe)
        assert client.post(body_of(ns="beside")).status == 200
        # What has begun no request, or no more than its head, is hung up on; what is no HTTP is told so.
        for pipe in pipes[:3]:
            assert pipe.recv(1) == b""
        for pipe in pipes[4:]:
            assert pipe.recv(100).startswith(b"HTTP/1.1 400")
    assert client.post(body_of(ns="beside", rid="r2")).status == 200


@pytest.mark.parametrize("name", ["hurried", pytest.param("server", marks=pytest.mark.slow)])
def test_a_client_that_drips_is_cut_off(name: str, request: pytest.FixtureRequest) -> None:
    """Each byte in time, and the whole of it never: the deadline is the head's, not the byte's."""
    with _connected(request.getfixturevalue(name)) as pipe:
        pipe.settimeout(0.05)
        assert _drip(pipe)


def _drip(pipe: socket.socket) -> bool:
    while True:
        try:
            pipe.sendall(b"X")
            return pipe.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            return True


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_held(server: Server, client: Client, declared: bool) -> None:
    head = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with _connected(server) as pipe:
        if declared:
            pipe.sendall(head + b"Content-Length: 33554433\r\n\r\n")
        else:
            pipe.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(32):
                pipe.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            pipe.sendall(b"1\r\n \r\n")
        assert pipe.recv(12) == b"HTTP/1.1 413"
    assert client.get("/health").status == 200


HEAD = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_who_sends_no_more_is_answered_still(server: Server) -> None:
    """Half a connection is enough for an answer, and for those to all that was sent ahead; half a request is none."""
    bodies = [body_of(ns="half", rid=f"h{number}", args=[number, "2024-03-04T12:00:00.000Z"]) for number in range(3)]
    sent = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies)
    for rest, answers in ((b"", 3), (HEAD + b"Content-Length: 9\r\n\r\n{", 3)):
        with _connected(server) as pipe:
            pipe.sendall(sent + rest)
            pipe.shutdown(socket.SHUT_WR)
            assert pipe.makefile("rb").read().count(b'{"ok":true,"result":null}') == answers
    with _connected(server) as idle:
        idle.shutdown(socket.SHUT_WR)
        assert idle.recv(1) == b""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 3\r\nContent-Encoding: gzip\r\n", 415),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        (b"Content-Length: -3\r\n", 400),
    ],
)
def test_a_body_that_others_could_read_otherwise_is_refused(server: Server, headers: bytes, status: int) -> None:
    """And the connection with it: what would come next on it may be anybody's."""
    with _connected(server) as pipe:
        pipe.sendall(HEAD + headers + b"\r\n")
        reply = pipe.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert reply.count(b"HTTP/1.1") == 1


def test_older_and_other_ways_to_send_a_call_are_answered(server: Server) -> None:
    body = body_of(ns="ways")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 9]), body[at : at + 9]) for at in range(0, len(body), 9)) + b"0\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    for sent in (
        HEAD.replace(b"1.1", b"1.0") + length + b"\r\n" + body,
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
    ):
        with _connected(server) as pipe:
            pipe.sendall(sent)
            assert b'{"ok":true,"result":null}' in pipe.makefile("rb").read()
    with _connected(server) as pipe:
        pipe.sendall(HEAD + length + b"Connection: close\r\nExpect: 100-continue\r\n\r\n")
        assert pipe.recv(12) == b"HTTP/1.1 100"
        pipe.sendall(body)
        assert b'{"ok":true,"result":null}' in pipe.makefile("rb").read()


def test_tls_where_there_is_none_ends_at_once(server: Server) -> None:
    with _connected(server) as pipe, pytest.raises((ssl.SSLError, OSError)):
        ssl._create_unverified_context().wrap_socket(pipe)


def test_a_head_that_is_too_large_is_refused(server: Server, client: Client) -> None:
    with _connected(server) as pipe:
        pipe.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000)
        assert pipe.recv(12) == b"HTTP/1.1 400"
    assert client.get("/health").status == 200


def test_connections_that_all_come_at_once_take_no_descriptors_from_the_stores(tmp_path: Path) -> None:
    with Server(tmp_path / "data", descriptors=256) as server, contextlib.ExitStack() as held:
        client = server.client()
        assert client.post(WRITE).status == 200
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(400):
            pipe = held.enter_context(socket.socket())
            pipe.setblocking(False)
            pipe.connect_ex(("127.0.0.1", server.port))
        os.kill(server.pid, signal.SIGCONT)
        for number in range(5):
            assert client.post(body_of(ns=f"n{number}")).status == 200
        assert server.stderr == ""


def test_connections_beyond_what_is_allowed_are_told_so(tmp_path: Path) -> None:
    """A limit of 256 descriptors leaves 64 for connections; the server goes on, and lets others in when some have left."""
    with Server(tmp_path / "data", descriptors=256) as server:
        client = server.client()
        assert client.post(WRITE).status == 200
        pipes = [_connected(server) for _ in range(100)]
        answers = []
        for pipe in pipes[63:]:
            answers.append(pipe.recv(12))
        assert set(answers) == {b"HTTP/1.1 503"}
        assert client.post(WRITE).status == 200
        for pipe in pipes:
            pipe.close()
        # They have left once the server has seen it: until then it says 503, and hangs up.
        while True:
            again = Client(server.url)
            status = again.get("/health").status
            again.close()
            if status == 200:
                break
            assert status == 503
            time.sleep(0.02)  # so that it comes to see it


@pytest.mark.slow
def test_namespaces_that_are_all_in_use_wait_for_one_another(tmp_path: Path) -> None:
    """Far more at a time than the descriptors allow: each is answered, as nobody holds what another one waits for."""
    with Server(tmp_path / "data", "--durability", "process", descriptors=160) as server:
        clients = [server.client() for _ in range(16)]

        def visit(place: int) -> int:
            return clients[place % 16].post(body_of(ns=f"bot-{place // 2}", rid=f"r{place}")).status

        def visits(mine: int) -> set[int]:
            return {visit(place) for place in range(mine, 64, 16)}

        with ThreadPoolExecutor(16) as pool:
            assert set().union(*pool.map(visits, range(16))) == {200}
        assert len(os.listdir(server.folder / "ns")) == 32
