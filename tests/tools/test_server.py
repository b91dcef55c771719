"""`eventstore serve`, as a process and over real sockets: what it answers, what it remembers, how it begins and ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.clock import format_us
from eventstore.tools.outcome import page
from tests.tools.served import ROOT, WAIT_S, Client, Server, refused

STATE = {"signalId": "s1", "bucketName": "b"}
POSITION = {"symbol": "B", "strategyName": "st", "exchangeName": "x"}
SESSION = {"strategyName": "st", "exchangeName": "x", "frameName": "", "symbol": "B", "backtest": False}
NOON = "2024-03-04T12:00:00.000Z"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for those that ask the same of it whatever was asked before."""
    with Server(tmp_path_factory.mktemp("common") / "data") as running:
        yield running


def write(client: Client, data: Any, rid: str, ns: str = "") -> Any:
    """Write a state."""
    return client.call("State", "writeStateData", data, NOON, context=STATE, ns=ns, rid=rid)


def read(client: Client, ns: str = "") -> Any:
    """Read it."""
    return client.call("State", "readStateData", context=STATE, ns=ns)


def reading(ns: str = "") -> dict[str, Any]:
    """The request of read()."""
    return {"ns": ns, "rid": "r", "contract": "State", "context": STATE, "method": "readStateData", "args": []}


def raw(data: bytes, rid: str, ns: str = "") -> bytes:
    """A write of this very text."""
    head = {"ns": ns, "rid": rid, "contract": "State", "context": STATE, "method": "writeStateData"}
    return json.dumps(head).encode()[:-1] + b', "args": [' + data + b', "' + NOON.encode() + b'"]}'


def transactions(client: Client, domain: str = "state") -> int:
    """How many the server has appended to a domain."""
    wanted = f'eventstore_transactions_total{{domain="{domain}"}} '
    return next((int(line.rpartition(" ")[2]) for line in client.get("/metrics").body.decode().splitlines() if line.startswith(wanted)), 0)


# ---- calls


@pytest.mark.parametrize("text", [b'{"cut":"\\ud83d","n":1e5,"z":-0,"q":1.50}', '{"Preis":"1 €"}'.encode(), b"[ 1 , { } ]", b"12.0"])
def test_a_value_is_given_back_byte_for_byte(common: Server, text: bytes) -> None:
    client, ns = common.client(), text.hex()
    assert client.post(raw(text, "r1", ns)).body == b'{"ok":true,"result":null}'
    reply = client.post({"ns": ns, "rid": "r2", "contract": "State", "context": STATE, "method": "readStateData", "args": []})
    assert reply.body == b'{"ok":true,"result":' + text + b"}"
    assert reply.headers["content-type"] == "application/json"


def test_a_retry_gives_the_first_outcome_and_another_request_under_its_rid_is_refused(server: Server) -> None:
    client = server.client()
    write(client, {"n": 1}, "r1")
    write(client, {"n": 2}, "r2")
    write(client, {"n": 1}, "r1")
    assert read(client) == {"n": 2}
    answer = client.post(raw(b'{"n":3}', "r1")).json()
    assert (answer["ok"], answer["error"]["name"]) == (False, "DuplicateEventError")
    assert "r1" in answer["error"]["message"]
    # In another contract, or another namespace, it is another call.
    client.call("Session", "writeSessionData", {"n": 1}, NOON, rid="r1", context=SESSION)
    write(client, {"n": 9}, "r1", ns="other")
    server.stop()
    with eventstore.open(server.folder) as store:
        events = list(store.domain("state").events())
        assert [json.loads(event.meta or "{}")["event_id"] for event in events] == ["r1", "r2"]
        assert all(json.loads(event.meta or "{}")["request"] for event in events)


def test_a_retry_after_a_kill_is_the_same_write(tmp_path: Path) -> None:
    rows = [{"id": f"n{number}", "type": "x"} for number in range(3)]

    def calls(client: Client) -> None:
        write(client, {"n": 1}, "r1")
        for name, context in (("Notification", {"backtest": False}), ("Log", {})):
            client.call(name, f"write{name}Data", rows, context=context, rid="r1")
            client.call(name, f"write{name}Data", [*rows[:2], {"id": "n2", "type": "y"}], context=context, rid="r2")
        bucket = {"bucket": "b"}
        client.call("Measure", "writeMeasureData", {"id": "k", "data": 1, "removed": False}, "k", NOON, context=bucket, rid="r1")
        client.call("Measure", "removeMeasureData", "k", context=bucket, rid="r2")

    server = Server(tmp_path / "data").start()
    calls(server.client())
    server.kill()
    with server as again:
        client = again.client()
        before = [client.get(f"/log?domain={name}").body for name in ("state", "notification", "log", "measure")]
        calls(client)
        assert [client.get(f"/log?domain={name}").body for name in ("state", "notification", "log", "measure")] == before


def test_requests_of_one_connection_are_answered_in_order(server: Server) -> None:
    """Sent at once, without waiting for an answer: each read sees the write before it, and none that comes after."""
    reading = json.dumps({"ns": "", "rid": "r", "contract": "State", "context": STATE, "method": "readStateData", "args": []}).encode()
    head = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    bodies = [body for number in range(20) for body in (raw(b"%d" % number, f"r{number}"), reading)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as pipe:
        pipe.sendall(b"".join(head % len(body) + body for body in bodies))
        found = b""
        while found.count(b"}") < len(bodies):
            some = pipe.recv(65_536)
            assert some
            found += some
    results = re.findall(rb'"result":(\w+)}', found)
    assert results == [each for number in range(20) for each in (b"null", b"%d" % number)]


def test_concurrent_requests_share_transactions(server: Server) -> None:
    """While another process holds the log they all come to wait; then a few transactions answer them all."""
    asking = server.client()
    write(asking, 0, "first")
    writers = [server.client() for _ in range(32)]
    before = transactions(asking)
    with eventstore.open(server.folder) as other, ThreadPoolExecutor(len(writers)) as pool:
        with other.domain("state").group.live.log.writing():
            answers = [pool.submit(write, writer, number, f"r{number}") for number, writer in enumerate(writers)]
            while b"eventstore_server_under_way 33\n" not in asking.get("/metrics").body:
                assert not any(answer.done() for answer in answers)
        assert [answer.result() for answer in answers] == [None] * 32
    assert transactions(asking) - before <= 8
    assert len(asking.get("/log?domain=state&limit=1000").json()["items"]) == 33


def test_concurrent_first_callers_share_one_initialisation(server: Server) -> None:
    clients = [server.client() for _ in range(8)]
    together = threading.Barrier(len(clients))

    def first(client: Client) -> Any:
        together.wait()
        return client.call("State", "waitForInit", True, context=STATE, ns="new")

    with ThreadPoolExecutor(len(clients)) as pool:
        assert list(pool.map(first, clients)) == [None] * 8
    assert b"eventstore_server_namespaces 2\n" in clients[0].get("/metrics").body
    assert os.listdir(server.folder / "ns") == ["new"]


# ---- namespaces


def test_namespaces_are_stores_of_their_own(server: Server) -> None:
    client = server.client()
    for ns in ("", "live", "bot/../7", "ÄÖ", "..", "A"):
        assert read(client, ns) is None
        write(client, {"ns": ns}, "r1", ns)
    assert [read(client, ns) for ns in ("", "live", "bot/../7", "ÄÖ", "..", "A")] == [
        {"ns": ns} for ns in ("", "live", "bot/../7", "ÄÖ", "..", "A")
    ]
    folders = sorted(os.listdir(server.folder / "ns"))
    assert folders == ["%2E%2E", "%41", "%C3%84%C3%96", "bot%2F%2E%2E%2F7", "live"]
    assert sorted(os.listdir(server.folder.parent)) == ["data", "data.stderr"]
    server.stop()
    with eventstore.open(server.folder / "ns" / "live") as store:
        assert store.domain("state").read_value(("s1", "b")) == {"ns": "live"}
        assert store.verify().ok


@pytest.mark.corrupts
def test_a_read_makes_no_namespace_and_finds_what_an_empty_one_has(server: Server, tmp_path: Path) -> None:
    client = server.client()
    calls: list[tuple[str, str, tuple[Any, ...], dict[str, Any], Any]] = [
        ("State", "readStateData", (), STATE, None),
        ("Risk", "readPositionData", (NOON,), {"riskName": "r", "exchangeName": "x"}, []),
        ("Memory", "hasMemoryData", ("m",), STATE, False),
        ("Memory", "listMemoryData", (), STATE, []),
        ("Storage", "readStorageData", (), {"backtest": False}, []),
        ("Candle", "readCandlesData", (1, 0, 0), {"symbol": "B", "interval": "1m", "exchangeName": "x"}, None),
        ("State", "dispose", (), STATE, None),
    ]
    for contract, method, args, context, expected in calls:
        assert client.call(contract, method, *args, context=context, ns="nobody's") == expected
    assert client.post({**reading("nobody's"), "args": [1]}).json()["error"]["name"] == "ContractError"
    assert not (tmp_path / "data/ns").exists()
    client.call("State", "waitForInit", True, context=STATE, ns="waited-for")
    write(client, 1, "r1", "written")
    assert sorted(os.listdir(tmp_path / "data/ns")) == ["waited-for", "written"]


def test_a_namespace_whose_folder_is_gone_is_refused_alone_until_it_stands_there_again(server: Server, tmp_path: Path) -> None:
    client, folder = server.client(), server.folder / "ns" / "bot"
    for ns in ("bot", "other"):
        write(client, {"n": 1}, "r1", ns)
    folder.rename(tmp_path / "away")
    for number in range(2):
        for reply in (client.post(raw(b'{"n": 2}', "r2", "bot")), client.post(reading("bot"))):
            assert (reply.status, reply.json()["error"]["name"]) == (503, "FolderGoneError")
            assert "eventstore init" in reply.json()["error"]["message"]
            assert str(server.folder) not in reply.body.decode()
        write(client, {"n": number}, f"other-{number}", "other")
    assert client.get("/health").status == 200
    assert not folder.exists()
    (tmp_path / "away").rename(folder)
    assert read(client, "bot") == {"n": 1}
    write(client, {"n": 2}, "r2", "bot")
    assert [item["value"] for item in client.get("/log?domain=state&ns=bot").json()["items"]] == [{"n": 1}, {"n": 2}]


@pytest.mark.corrupts
def test_another_store_in_a_namespaces_folder_is_served_from_the_next_request_on(server: Server, tmp_path: Path) -> None:
    client, folder = server.client(), server.folder / "ns" / "bot"
    for ns, numbers in (("bot", range(3)), ("another", range(7, 8))):
        for number in numbers:
            write(client, {"n": number}, f"r{number}", ns)
    folder.rename(tmp_path / "away")
    shutil.copytree(server.folder / "ns" / "another", folder)
    assert read(client, "bot") == {"n": 7}
    write(client, {"n": 8}, "r8", "bot")
    shutil.rmtree(folder)
    with eventstore.open(folder):
        assert read(client, "bot") is None
    write(client, {"n": 0}, "r0", "bot")
    server.stop()
    assert "removed or replaced while it was served" in server.stderr
    for place, values in ((folder, [{"n": 0}]), (tmp_path / "away", [{"n": 0}, {"n": 1}, {"n": 2}])):
        with eventstore.open(place) as store:
            assert store.verify().ok
            state = store.domain("state")
            assert [json.loads(state.text_of(event) or "") for event in state.events()] == values


@pytest.mark.corrupts
def test_a_copy_of_a_namespaces_own_store_is_not_written_before_it_was_told(server: Server, tmp_path: Path) -> None:
    client, folder = server.client(), server.folder / "ns" / "bot"
    write(client, {"n": 1}, "r1", "bot")
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    reply = client.post(raw(b'{"n": 2}', "r2", "bot"))
    assert (reply.status, reply.json()["error"]["name"]) == (503, "FencedError")
    assert "replaced under the open store" in server.stderr
    while client.post(raw(b'{"n": 2}', "r2", "bot")).status == 503:
        pass
    assert read(client, "bot") == {"n": 2}


@pytest.mark.faults  # for its length alone
@pytest.mark.timeout(900)
def test_303_namespaces_in_a_server_that_may_have_1024_descriptors(tmp_path: Path) -> None:
    """Going round twice, so that each was closed before it is asked again; what stays open never exceeds what may be."""
    with Server(tmp_path / "data", "--durability", "process", descriptors=1_024) as server:
        clients = [server.client() for _ in range(3)]

        def visit(client: Client, place: int) -> int:
            ns, again = f"bot-{place % 303}", place >= 303
            assert read(client, ns) == ({"n": place - 303} if again else None)
            write(client, {"n": place}, f"r{place}", ns)
            client.call("Strategy", "writeStrategyData", {"n": place}, context=POSITION, ns=ns, rid=f"r{place}")
            client.call("Log", "writeLogData", [{"id": f"l{place}"}], context={}, ns=ns, rid=f"r{place}")
            assert len(client.call("Log", "readLogData", context={}, ns=ns)) == 1 + again
            return len(os.listdir(f"/proc/{server.pid}/fd")) if Path("/proc/self/fd").is_dir() else 0

        def visits(mine: int) -> int:
            return max(visit(clients[mine], place) for place in range(mine, 2 * 303, 3))  # 303 is 3 x 101: a namespace has one visitor

        with ThreadPoolExecutor(3) as pool:
            assert max(pool.map(visits, range(3))) < 1_024
        opened = re.search(rb"eventstore_server_namespaces (\d+)", clients[0].get("/metrics").body)
        assert opened is not None
        assert 1 < int(opened[1]) < 303
        assert server.stderr == ""


# ---- beginning and ending


def test_a_second_server_on_the_same_folder_is_refused(server: Server) -> None:
    answer = refused(server.folder)
    assert answer.code == 2
    assert answer.error()["error"] == "OwnedError"
    assert answer.error()["pid"] == server.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_what_is_under_way_is_answered(tmp_path: Path, number: int) -> None:
    server = Server(tmp_path / "data").start()
    writer, asking = server.client(), server.client()
    write(writer, 0, "first")
    with eventstore.open(server.folder) as other, ThreadPoolExecutor(1) as pool:
        with other.domain("state").group.live.log.writing():
            answer = pool.submit(write, writer, {"n": 1}, "r1")
            while b"eventstore_server_under_way 2\n" not in asking.get("/metrics").body:
                assert not answer.done()
            asking.close()
            assert server.process is not None
            server.process.send_signal(number)
            # No new ones: the port is given back.
            while True:
                with socket.socket() as trying:
                    if trying.connect_ex(("127.0.0.1", server.port)):
                        break
            assert not answer.done()
        assert answer.result() is None
    last, code = server.ended()
    assert (code, server.stderr) == (0, "")
    assert json.loads(last)["requests"] > 2
    with eventstore.open(server.folder, owner="server") as store:
        assert store.domain("state").read_value(("s1", "b")) == {"n": 1}


def test_whatever_was_acknowledged_before_it_stops_is_there(tmp_path: Path) -> None:
    """Sixty-four clients that write as fast as they are answered, until nobody answers."""
    server = Server(tmp_path / "data", "--durability", "process").start()
    clients = [Client(server.url) for _ in range(64)]
    enough = threading.Semaphore(0)

    def writes(mine: int) -> int:
        state, number = {"signalId": f"s{mine}", "bucketName": "b"}, 0
        while True:
            try:
                clients[mine].call("State", "writeStateData", number, NOON, context=state, rid=f"{mine}-{number}")
            except (OSError, http.client.HTTPException):
                return number
            number += 1
            enough.release()

    with ThreadPoolExecutor(len(clients)) as pool:
        acknowledged = [pool.submit(writes, mine) for mine in range(len(clients))]
        for _ in range(200):
            assert enough.acquire(timeout=WAIT_S)
        server.stop()
        counts = [each.result() for each in acknowledged]
    assert sum(counts) >= 200
    with eventstore.open(server.folder) as store:
        state = store.domain("state")
        for mine, count in enumerate(counts):
            assert state.get((f"s{mine}", "b"), -1) >= count - 1
    for client in clients:
        client.close()


def test_what_is_cut_off_when_it_stops_is_told_to_ask_again(tmp_path: Path) -> None:
    """Half a request, which would be waited for longer than a test may take."""
    server = Server(tmp_path / "data").sooner(STOP_S=1).start()
    asking = server.client()
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as half:
        half.sendall(b"POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        while b"eventstore_server_under_way 2\n" not in asking.get("/metrics").body:
            pass
        server.stop()
        reply = half.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in reply
    assert "Traceback" not in server.stderr


def test_a_retry_whose_first_outcome_is_in_an_archive_is_refused_for_good(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        client = server.client()
        write(client, {"n": 1}, "r1")
        write(client, {"n": 2}, "r2")
    with eventstore.open(server.folder) as store:
        store.seal("state")
        store.archive(to=tmp_path / "archive")
    with server:
        client = server.client()
        for reply in (client.post(raw(b'{"n": 1}', "r1")), client.get("/log?domain=state")):
            assert (reply.status, reply.json()["error"]["name"]) == (410, "CompactedError")
        assert str(tmp_path) not in client.post(raw(b'{"n": 1}', "r1")).body.decode()
        write(client, {"n": 3}, "r3")


def test_a_unix_socket_is_private_and_a_dead_servers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "data.sock"
    server = Server(tmp_path / "data", "--unix", path).start()
    assert server.listening == [f"unix:{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write(server.client(), {"n": 1}, "r1")
    other = refused(tmp_path / "other", "--unix", path)
    assert other.code == 2
    assert "somebody listens there" in other.err
    server.kill()
    assert path.exists()
    with server:
        assert read(server.client()) == {"n": 1}
    assert not path.exists()
    long = refused(tmp_path / "data", "--unix", tmp_path / ("x" * 120))
    assert (long.code, "too long for a socket's path" in long.err) == (3, True)
    path.write_text("a file")
    assert "no socket" in refused(tmp_path / "data", "--unix", path).err
    assert path.read_text() == "a file"


def test_it_listens_on_both_if_both_are_named(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--unix", tmp_path / "s", "--port", 0) as server:
        assert [where.partition(":")[0] for where in server.listening] == ["unix", "http"]
        for where in server.listening:
            client = Client(where)
            assert client.get("/health").json() == {"ok": True}
            client.close()


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path) -> None:
    answer = refused(tmp_path / "other", "--port", server.port)
    assert answer.code == 2
    assert f"127.0.0.1:{server.port} cannot be listened on" in answer.err


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process can be set on Linux alone")
def test_a_server_that_could_not_write_goes_on_when_it_can(server: Server) -> None:
    """As with a full disk: refused, said in /health, and written once when there is space, by whoever asks again."""
    client = server.client()
    write(client, {"n": 0}, "first", "bot")
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    reply = client.post(raw(b'{"n":1}', "r1", "bot"))
    assert (reply.status, reply.headers["retry-after"], reply.json()["ok"]) == (503, "1", False)
    assert str(server.folder) not in reply.body.decode()
    assert read(client, "bot") == {"n": 0}
    health = client.get("/health")
    assert (health.status, health.json()) == (503, {"ok": False})
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    while (reply := client.post(raw(b'{"n":1}', "r1", "bot"))).status == 503:
        assert reply.json()["error"]["name"] == "HaltedError"
    assert reply.json() == {"ok": True, "result": None}
    assert client.get("/health").status == 200
    assert [item["value"] for item in client.get("/log?domain=state&ns=bot").json()["items"]] == [{"n": 0}, {"n": 1}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full")
def test_a_log_that_cannot_be_written_keeps_nobody_from_an_answer(tmp_path: Path) -> None:
    foreign = tmp_path / "data" / "ns" / "foreign"
    server = Server(tmp_path / "data")
    server.command = ["sh", "-c", 'exec "$@" 2> /dev/full', "sh", *server.command]
    with server:
        (foreign / "folder").mkdir(parents=True)
        client = server.client()
        for _ in range(2):
            reply = client.post(raw(b"1", "r1", "foreign"))
            assert (reply.status, reply.json()["error"]["name"]) == (500, "NotAStoreError")
        write(client, {"n": 1}, "r1")
        assert server.stop()["requests"] == 3


def test_the_examples_of_its_page_run(tmp_path: Path) -> None:
    """With any free port where they would take the usual one: it may be taken."""
    examples = page("serve").split("Example:\n")[1]
    token = tmp_path / "token"
    token.write_text("a-token-of-no-importance")
    token.chmod(0o600)
    for example in filter(None, map(str.strip, examples.splitlines())):
        words = shlex.split(example)[1:] + ([] if "--unix" in example or "--port" in example else ["--port", "0"])
        command = [sys.executable, "-m", "eventstore", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert "listening" in running.stdout.readline()
            running.terminate()
            said, complained = running.communicate(timeout=WAIT_S)
        assert (running.returncode, complained) == (0, ""), (example, said)


# ---- pages


def test_the_log_and_a_history_come_in_pages(common: Server) -> None:
    client = common.client()
    for number in range(5):
        write(client, {"n": number}, f"r{number}", ns="pages")
    first = client.get("/log?ns=pages&domain=state&limit=3").json()
    assert [(item["position"], item["value"]) for item in first["items"]] == [(1, {"n": 0}), (2, {"n": 1}), (3, {"n": 2})]
    assert first["next"] == 3
    rest = client.get("/log?ns=pages&domain=state&limit=3&after=3").json()
    assert ([item["position"] for item in rest["items"]], rest["next"]) == ([4, 5], None)
    key = '["s1","b"]'.replace('"', "%22")
    newest = client.get(f"/history?ns=pages&domain=state&key={key}&limit=2").json()
    assert ([item["value"]["n"] for item in newest["items"]], newest["next"]) == ([4, 3], 4)
    older = client.get(f"/history?ns=pages&domain=state&key={key}&before=4").json()
    assert ([item["value"]["n"] for item in older["items"]], older["next"]) == ([2, 1, 0], None)


def test_a_state_is_read_as_of_a_position_or_a_time(common: Server) -> None:
    client = common.client()
    for number in range(3):
        client.call("Measure", "writeMeasureData", {"id": f"k{number}"}, f"k{number}", NOON, context={"bucket": "b"}, rid=f"r{number}")
    client.call("Measure", "removeMeasureData", "k0", context={"bucket": "b"}, rid="gone")

    def keys(path: str) -> list[str]:
        return [item["key"][1] for item in client.get(path).json()["items"]]

    assert keys("/state?domain=measure") == ["k1", "k2"]
    assert keys("/state?domain=measure&as_of=2") == ["k0", "k1"]
    second = client.get("/log?domain=measure").json()["items"][1]["recorded_us"]
    assert keys(f"/state?domain=measure&as_of={format_us(second)}") == ["k0", "k1"]
    first = client.get("/state?domain=measure&as_of=3&limit=2").json()
    assert first["next"] == ["b", "k1"]
    assert keys("/state?domain=measure&as_of=3&after=[%22b%22,%22k1%22]") == ["k2"]
    assert keys("/state?domain=measure&prefix=[%22c%22]") == []


def test_a_proof_is_made_by_another_process(common: Server) -> None:
    client = common.client()
    write(client, {"n": 1}, "r1", ns="proven")
    report = client.get("/verify?ns=proven&domain=state").json()
    assert (report["ok"], [line["events"] for line in report["domains"]]) == (True, [1])
    assert str(common.folder) not in json.dumps(report)


def test_health_and_metrics(server: Server) -> None:
    client = server.client()
    write(client, {"n": 1}, "r1", ns="live")
    assert client.get("/health").json() == {"ok": True}
    assert b'eventstore_server_requests_total{status="200"} 2\n' in client.get("/metrics").body
    assert b'eventstore_events_total{domain="state"} 1\n' in client.get("/metrics?ns=live").body
    assert client.get("/metrics?ns=none").status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/log", 400),
        ("/log?domain=none", 404),
        ("/log?domain=state&ns=none", 404),
        ("/log?domain=state&order=up", 400),
        ("/log?domain=state&domain=state", 400),
        ("/log?domain=../x", 400),
        ("/log?domain=state&limit=0", 400),
        ("/log?domain=state&limit=1001", 400),
        ("/log?domain=state&after=-1", 400),
        ("/log?domain=state&after=99999999999999999999", 400),
        ("/history?domain=state", 400),
        ("/history?domain=state&key=[1", 400),
        ("/state?domain=state&as_of=yesterday", 400),
        ("/state?domain=state&as_of=2024-01-01T00:00:00", 400),
        ("/verify?ns=none", 404),
        ("/verify?domain=none", 404),
        ("/health?x=1", 400),
        ("/nothing", 404),
        ("/rpc", 405),
    ],
)
def test_parameters_that_are_none_are_refused(common: Server, path: str, status: int) -> None:
    client = common.client()
    write(client, {"n": 1}, "r1")
    reply = client.get(path)
    assert (reply.status, reply.json()["ok"]) == (status, False)
    assert str(common.folder.parent) not in reply.body.decode()
    assert not (common.folder / "ns" / "none").exists()
