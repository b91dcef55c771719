"""The program for strangers: what it calls proven is so, whatever it is given, and it says what is not."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

import eventstore
from eventstore import Anchor, Bundle, Store
from eventstore.adapters.signing import sign
from eventstore.codec import seal
from eventstore.model import Head
from eventstore.tools import verify_bundle
from eventstore.tools.verify_bundle import UnjudgedError, signed_by
from tests.eventstore import rfc9162

DOMAIN = "orders"
STORE_ID = "00112233445566778899aabbccddeeff"
Json = dict[str, Any]


def fill(store: Store, words: str = "honest") -> list[Anchor]:
    """Nine events; an anchor at position 6, and one at the end."""
    anchors = []
    for count in (6, 3):
        for n in range(count):
            store.domain(DOMAIN).write_value("abc"[n % 3], {"n": n, "said": words}, actor="бот", when=n)
        anchors.append(store.anchor())
    return anchors


class Case(msgspec.Struct):
    """A bundle of positions 2, 3, 4 and 7 of nine; anchors at 6 and at 9; who may sign."""

    bundle: Bundle
    old: Anchor
    new: Anchor
    folder: Path
    key: Path
    public: Path

    @property
    def content(self) -> Json:
        """The bundle, to be spoiled."""
        found: Json = json.loads(self.bundle.text())
        return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("verify")
    with eventstore.open("memory:", store_id=STORE_ID) as store:
        old, new = fill(store)
        bundle = store.bundle(DOMAIN, positions=[2, 3, 4, 7], since=old)
    return Case(bundle, old, new, folder, *new_key(folder, "keeper"))


def new_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a private and of its public key."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(0o600)
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def canonical(content: Any) -> bytes:
    """As a bundle is written; lone surrogates stay what they are."""
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def judged(content: bytes | Json | Bundle, anchor: bytes | Anchor | None = None, key: str | None = None) -> tuple[set[int], str]:
    """The positions that are PROVEN, and all that was said. Raises UnjudgedError."""
    if isinstance(content, Bundle):
        content = content.text().encode()
    bundle = verify_bundle.parse(content if isinstance(content, bytes) else canonical(content), "the bundle")
    kept = None
    if anchor is not None:
        kept = verify_bundle.parse(anchor.text().encode() if isinstance(anchor, Anchor) else anchor, "the anchor")
        verify_bundle.require_anchor(kept, "the anchor")
    verify_bundle.require_bundle(bundle)
    code, lines = verify_bundle.report(bundle, kept, None if key is None else verify_bundle.key_of(key))
    verdicts = {
        int(line.split("position ")[1].split(":")[0]): line[0] == "P" for line in lines if line.startswith(("PROVEN", "NOT PROVEN"))
    }
    assert len(verdicts) == len(bundle["events"])
    assert code == int(not all(verdicts.values()))
    return {position for position, proven in verdicts.items() if proven}, "\n".join(lines)


def signed(case: Case, key: Path | None = None) -> Bundle:
    """The bundle, signed."""
    return msgspec.structs.replace(case.bundle, anchor=sign(case.bundle.anchor, key or case.key))


def hex_of(key: Path) -> str:
    """A private key's public one in hexadecimal."""
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(loaded, Ed25519PrivateKey)
    return loaded.public_key().public_bytes_raw().hex()


# ---- what holds


def test_against_an_anchor_of_the_same_end_all_is_proven(case: Case) -> None:
    proven, said = judged(case.bundle, case.new)
    assert proven == {2, 3, 4, 7}
    assert "4 of 4 events proven, by the anchor of " in said
    assert "from 2 to 4 nothing is left out" in said
    assert "not proven: that other positions hold nothing that matters" in said
    assert "recorded  20" in said
    assert "when      1970-01-01T00:00:00.000001Z, as the writer says" in said
    assert 'meta      {"actor":"бот"}' in said
    assert 'value     {"n":1,"said":"honest"}' in said


def test_against_an_older_anchor_what_came_since_is_not_proven(case: Case) -> None:
    proven, said = judged(case.bundle, case.old)
    assert proven == {2, 3, 4}
    assert "it came after position 6" in said
    assert "3 of 4 events proven" in said


def test_without_anything_from_elsewhere_nothing_is_proven(case: Case) -> None:
    for bundle in (case.bundle, signed(case)):
        proven, said = judged(bundle)
        assert proven == set()
        assert "agrees with itself" in said
        assert "0 of 4 events proven" in said
        assert ("a key that nobody vouched for" in said) is (bundle.anchor.signature is not None)


def test_a_signature_by_a_known_key_proves_all_on_its_owners_word(case: Case) -> None:
    for key in (hex_of(case.key), hex_of(case.key).upper(), str(case.public)):
        proven, said = judged(signed(case), key=key)
        assert proven == {2, 3, 4, 7}
        assert f"on the word of whoever holds the key {hex_of(case.key)}" in said


def test_with_a_key_it_is_the_anchor_that_must_be_signed(case: Case) -> None:
    assert judged(case.bundle, sign(case.old, case.key), hex_of(case.key))[0] == {2, 3, 4}
    assert judged(signed(case), case.old, hex_of(case.key))[0] == set()


def test_an_anchor_that_cannot_be_reached_proves_nothing_and_says_what_to_ask_for(case: Case) -> None:
    with eventstore.open("memory:", store_id=STORE_ID) as store:
        anchors = fill(store)
        early = store.bundle(DOMAIN, positions=[2])
        fill(store)
        later = store.anchor()
        assert judged(early, anchors[0])[0] == set()
        assert "ask for it with `--since`" in judged(early, anchors[0])[1]
        assert judged(early, later)[0] == set()
        assert "older than the anchor" in judged(early, later)[1]
    rootless = msgspec.structs.replace(case.old, heads={DOMAIN: msgspec.structs.replace(case.old.heads[DOMAIN], root=None)})
    assert judged(case.bundle, rootless)[0] == set()
    assert "made without roots" in judged(case.bundle, rootless)[1]


# ---- forgeries

Forgery = Callable[[Json], object]


def swapped(content: Json, *names: str) -> None:
    """Members of the first two events change places."""
    one, other, *_ = content["events"]
    for name in names:
        one[name], other[name] = other[name], one[name]


def without_value(event: Json) -> None:
    """The event as if it had none."""
    del event["salt"], event["data"]


def resealed(content: Json) -> None:
    """Another value under a chain and a tree of the forger's own, which hold."""
    event = content["events"][0]
    event["data"] = '{"n":1000}'
    event["path"] = []
    for position in range(2):
        checksum = verify_bundle.checksum_of(event)
        head = {"position": position, "checksum": checksum.hex(), "root": rfc9162.root((checksum,)).hex()}
        content["anchor"]["heads"][DOMAIN] = head


FORGERIES: dict[str, Forgery] = {
    "an edited value": lambda c: c["events"][0].update(data='{"n":1000}'),
    "an edited meta": lambda c: c["events"][0].update(meta='{"actor":"nobody"}'),
    "no meta": lambda c: c["events"][0].pop("meta"),
    "another key": lambda c: c["events"][0].update(key='["z"]'),
    "another op": lambda c: c["events"][0].update(op="remove"),
    "another time": lambda c: c["events"][0].update(recorded_us=1),
    "another when": lambda c: c["events"][0].update(when_us=0),
    "no when": lambda c: c["events"][0].pop("when_us"),
    "another prev": lambda c: c["events"][0].update(prev=1),
    "another position": lambda c: c["events"][0].update(position=1),
    "another salt": lambda c: c["events"][0].update(salt="00" * 16),
    "a byte moved from the salt to the data": lambda c: c["events"][0].update(
        salt="00" + c["events"][0]["salt"][:-2], data=chr(int(c["events"][0]["salt"][-2:], 16)) + c["events"][0]["data"]
    ),
    "a value beside a digest": lambda c: c["events"][0].update(digest="00" * 32),
    "a digest in place of the value": lambda c: [
        c["events"][0].pop("salt"),
        c["events"][0].pop("data"),
        c["events"][0].update(digest="0" * 64),
    ],
    "a digest taken away": lambda c: [c["events"][0].pop("salt"), c["events"][0].pop("data")],
    "text as bytes": lambda c: c["events"][0].update(data={"base64": "e30="}, meta='{"codec":"x"}'),
    "meta that is no JSON": lambda c: c["events"][0].update(meta="["),
    "meta that is too deep": lambda c: c["events"][0].update(meta="[" * 100_000),
    "meta that is a list": lambda c: c["events"][0].update(meta="[1]"),
    "a key as long as no header says": lambda c: c["events"][0].update(key="x" * 2**16),
    "another checksum before": lambda c: c["events"][0].update(before="00" * 32),
    "a path that is shorter": lambda c: c["events"][0]["path"].pop(),
    "a path that is longer": lambda c: c["events"][0]["path"].append("00" * 32),
    "a path of another event": lambda c: swapped(c, "path"),
    "two events at each other's position": lambda c: swapped(c, "position"),
    "two events in each other's place": lambda c: swapped(c, *(set(c["events"][0]) - {"position"})),
    "another store": lambda c: c["anchor"].update(store_id="0" * 32),
    "another domain": lambda c: c["anchor"].update(heads={"other": c["anchor"]["heads"][DOMAIN]}),
    "an event for a birth row": lambda c: c["birth"].update(key='["a"]'),
    "another store's birth row": lambda c: c["birth"].update(data=c["birth"]["data"].replace(STORE_ID, "0" * 32)),
    "bytes for a birth row": lambda c: c["birth"].update(data={"base64": ""}),
    "a tree of the forger's own": resealed,
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_bundle_proves_nothing_that_was_forged(case: Case, forge: Forgery) -> None:
    content = case.content
    forge(content)
    untouched = {each["position"] for each in content["events"] if each in case.content["events"]}
    for anchor, key, signature in grounds(case):
        content["anchor"].update(signature)
        try:
            proven, said = judged(content, anchor, key)
        except UnjudgedError:
            continue
        assert proven <= untouched - {2}
        assert "NOT PROVEN  position" in said


def grounds(case: Case) -> list[tuple[Anchor | None, str | None, Json]]:
    """What a bundle can be held against: the newer anchor, the older one, a key; with the signature that it then has."""
    signature = json.loads(signed(case).text())["anchor"]["signature"]
    return [(case.new, None, {}), (case.old, None, {}), (None, hex_of(case.key), {"signature": signature})]


END: dict[str, Forgery] = {
    "a tree of another size": lambda c: c["anchor"]["heads"][DOMAIN].update(position=10),
    "a smaller tree": lambda c: c["anchor"]["heads"][DOMAIN].update(position=8),
    "another root": lambda c: c["anchor"]["heads"][DOMAIN].update(root="00" * 32),
    "another end": lambda c: c["anchor"]["heads"][DOMAIN].update(checksum="00" * 32),
}


@pytest.mark.parametrize("forge", END.values(), ids=END)
def test_a_bundle_that_lies_about_its_end_proves_nothing_but_what_an_older_anchor_holds_anyway(case: Case, forge: Forgery) -> None:
    content = case.content
    forge(content)
    newer, older, key = (judged({**content, "anchor": content["anchor"] | each[2]}, each[0], each[1])[0] for each in grounds(case))
    assert (newer, key) == (set(), set())
    assert older in (set(), {2, 3, 4}), "these are true, wherever the log may have ended since"


SINCE: dict[str, Forgery] = {
    "a hash less": lambda c: c["since"]["path"].pop(),
    "a hash more": lambda c: c["since"]["path"].append("00" * 32),
    "another hash": lambda c: c["since"]["path"].__setitem__(0, "00" * 32),
    "another order": lambda c: c["since"]["path"].reverse(),
    "another position": lambda c: c["since"].update(position=5),
    "none": lambda c: c.pop("since"),
}


@pytest.mark.parametrize("forge", SINCE.values(), ids=SINCE)
def test_a_forged_continuation_proves_nothing_by_the_older_anchor(case: Case, forge: Forgery) -> None:
    content = case.content
    forge(content)
    assert judged(content, case.old)[0] == set()
    assert judged(content, case.new)[0] == {2, 3, 4, 7}


def test_an_event_left_out_breaks_the_range_and_nothing_else(case: Case) -> None:
    content = case.content
    content["events"].pop(1)
    proven, said = judged(content, case.new)
    assert proven == {2, 4, 7}
    assert "left out" not in said


def test_a_store_made_to_look_like_it_proves_nothing_by_the_true_anchor(case: Case) -> None:
    with eventstore.open("memory:", store_id=STORE_ID) as impostor:
        anchors = fill(impostor, "forged")
        bundle = impostor.bundle(DOMAIN, after=0, since=anchors[0])
        early = impostor.bundle(DOMAIN, after=0)
    assert judged(bundle, anchors[1])[0] == set(range(1, 10))
    for forged in (bundle, early):
        for anchor in (case.old, case.new):
            assert judged(forged, anchor)[0] == set()
    assert "altered" in judged(bundle, case.old)[1]
    assert "altered" in judged(bundle, case.new)[1]


def test_a_log_that_was_cut_off_and_went_on_otherwise_proves_only_what_came_before_the_anchor(case: Case) -> None:
    with eventstore.open("memory:", store_id=STORE_ID) as store:
        fill(store)
        anchor = store.anchor()
        fill(store)
        events = [store.domain(DOMAIN).event(0), *store.domain(DOMAIN).events(until=8)]
    last = events[-1]
    other = seal(
        Head(last.position, last.checksum), prev=0, recorded_us=last.recorded_us + 1, when_us=None, op="put", key='["z"]', meta=None,
        data="1", salt=bytes(16),
    )  # fmt: skip
    with eventstore.open("memory:", store_id=STORE_ID) as forged:
        forged.adopt(DOMAIN, [*events, other])
        shorter = forged.anchor()
        forged.domain(DOMAIN).write_value("a", 1)
        bundle = forged.bundle(DOMAIN, after=0, since=shorter)
    assert judged(bundle, anchor)[0] == set()


def test_a_signature_of_anything_else_is_refused(case: Case, tmp_path: Path) -> None:
    other, _ = new_key(tmp_path, "other")
    key = hex_of(case.key)
    by_another = signed(case, other)
    assert judged(by_another, key=key) == (set(), judged(by_another, key=key)[1])
    renamed = json.loads(by_another.text())
    renamed["anchor"]["signature"]["key"] = key
    assert judged(renamed, key=key)[0] == set()
    assert "was altered or forged" in judged(renamed, key=key)[1]
    assert judged(renamed, case.new)[0] == set(), "a false signature is a forgery, whoever asked for it"
    assert judged(case.bundle, key=key)[0] == set()
    later = json.loads(signed(case).text())
    later["anchor"]["made_us"] += 1
    assert judged(later, key=key)[0] == set()
    assert judged(case.bundle, sign(case.new, other), key)[0] == set()
    assert judged(case.bundle, msgspec.structs.replace(sign(case.new, case.key), made_us=1), key)[0] == set()


def test_an_anchor_of_another_log_is_refused(case: Case) -> None:
    with eventstore.open("memory:") as store:
        fill(store)
        store.domain("other").write_value("a", 1)
        assert "of another log" in judged(case.bundle, store.anchor())[1]
    with eventstore.open("memory:", store_id=STORE_ID) as store:
        store.domain("other").write_value("a", 1)
        assert judged(case.bundle, store.anchor())[0] == set()


# ---- any bytes at all


def same_as_made(case: Case, content: bytes, proven: set[int]) -> bool:
    """Whether each event that is called proven is the one that was bundled."""
    originals = {event["position"]: event for event in case.content["events"]}
    found = {event["position"]: event for event in json.loads(content)["events"]}
    return all(found[position] == originals[position] for position in proven)


def require_harmless(case: Case, content: bytes) -> None:
    """Whatever the bytes are: an answer, no traceback, and nothing proven but what was bundled."""
    try:
        proven, _ = judged(content, case.new)
    except UnjudgedError:
        return
    assert same_as_made(case, content, proven)


def test_no_byte_can_be_another(case: Case) -> None:
    content = case.bundle.text().encode()
    unsaid = 0
    for at, byte in enumerate(content):
        spoiled = content[:at] + bytes([byte ^ 1]) + content[at + 1 :]
        try:
            proven, _ = judged(spoiled, case.new)
        except UnjudgedError:
            continue
        assert same_as_made(case, spoiled, proven)
        unsaid += proven == {2, 3, 4, 7}
    # Only what no anchor says may be another: when the bundle was made, and a continuation that nobody asked for.
    assert 0 < unsaid < 20 + len(json.dumps(case.content["since"]))


@given(st.data())
def test_bytes_spoiled_in_any_way_prove_nothing_new(case: Case, data: st.DataObject) -> None:
    content = case.bundle.text().encode()
    for _ in range(data.draw(st.integers(1, 4))):
        at, until = sorted(data.draw(st.tuples(st.integers(0, len(content)), st.integers(0, len(content)))))
        content = content[:at] + data.draw(st.binary(max_size=8)) + content[data.draw(st.sampled_from([at, at + 1, until])) :]
    require_harmless(case, content)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["00" * 32, "00" * 16]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["base64", "position", "path", "root"]), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_members_of_any_kind_prove_nothing_new(case: Case, data: st.DataObject) -> None:
    content = case.content
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = content
        while True:
            names = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not names:
                break
            name = data.draw(st.sampled_from(names))
            if not isinstance(place[name], dict | list) or data.draw(st.booleans()):
                place[name] = data.draw(ANYTHING)
                break
            place = place[name]
    require_harmless(case, canonical(content))


UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "a half": lambda c: c[: len(c) // 2],
    "all but one byte": lambda c: c[:-1],
    "two of them": lambda c: c + b"\n" + c,
    "white space": lambda c: c.replace(b",", b", ", 1),
    "two newlines": lambda c: c + b"\n\n",
    "a byte order mark": lambda c: b"\xef\xbb\xbf" + c,
    "another encoding": lambda c: c.decode().encode("utf-16"),
    "a member twice": lambda c: c.replace(b'"format":1', b'"format":1,"format":1', 1),
    "a member twice, first another": lambda c: c.replace(b'"position":9', b'"position":8,"position":9', 1),
    "another order": lambda c: json.dumps(dict(reversed(json.loads(c).items())), separators=(",", ":"), ensure_ascii=False).encode(),
    "an escape that is not needed": lambda c: c.replace(b"honest", b"h\\u006fnest", 1),
    "half an emoji": lambda c: c.replace(b"honest", b"\\ud83d", 1),
    "half an emoji, raw": lambda c: c.replace(b"honest", b"\xed\xa0\xbd", 1),
    "NaN": lambda c: c.replace(b'"position":9', b'"position":NaN', 1),
    "a fraction": lambda c: c.replace(b'"position":9', b'"position":9.0', 1),
    "infinity": lambda c: c.replace(b'"position":9', b'"position":1e999', 1),
    "-0": lambda c: c.replace(b'"position":0', b'"position":-0', 1),
    "a huge number": lambda c: c.replace(b'"position":9', b'"position":' + b"9" * 10_000_000, 1),
    "more than 63 bits": lambda c: c.replace(b'"position":9', b'"position":%d' % 2**63, 1),
    "true": lambda c: c.replace(b'"format":1', b'"format":true', 1),
    "a draft's format": lambda c: canonical(json.loads(c) | {"format": 0}),
    "a later format": lambda c: canonical(json.loads(c) | {"format": 2}),
    "a member more": lambda c: c.replace(b'"events":', b'"eventz":[],"events":', 1),
    "no events": lambda c: canonical(json.loads(c) | {"events": []}),
    "an event twice": lambda c: canonical(json.loads(c) | {"events": json.loads(c)["events"][:1] * 2}),
    "events in another order": lambda c: canonical(json.loads(c) | {"events": json.loads(c)["events"][::-1]}),
    "no root": lambda c: re.sub(b',"root":"[0-9a-f]{64}"', b',"toor":""', c),
    "two domains": lambda c: c.replace(b'"heads":{', b'"heads":{"a":{"checksum":"%s","position":0},' % (b"0" * 64), 1),
    "too deep": lambda _: b"[" * 10_000_000,
    "too deep, and closed": lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100 MB": lambda _: b'{"a":"' + b"x" * 100_000_000 + b'"}',
    "a number": lambda _: b"0",
}  # fmt: skip


@pytest.mark.parametrize("spoil", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_bundle_is_2_and_never_a_traceback(
    case: Case, spoil: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, anchor = tmp_path / "bundle.json", tmp_path / "anchor.json"
    content = case.bundle.text().encode()
    bundle.write_bytes(spoil(content))
    assert bundle.read_bytes() != content
    anchor.write_text(case.new.text())
    assert verify_bundle.main([str(bundle), "--anchor", str(anchor)]) == 2
    bundle.write_bytes(content)
    anchor.write_bytes(spoil(case.new.text().replace('"made_us"', '"events":[],"made_us"').encode()))
    assert verify_bundle.main([str(bundle), "--anchor", str(anchor)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("nothing to judge: the ") == 2
    assert len(shown.err) < 1_000


def test_a_file_may_be_just_as_large_as_the_format_allows(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, anchor = tmp_path / "bundle.json", tmp_path / "anchor.json"
    bundle.write_text(case.bundle.text() + "\n")
    anchor.write_text(case.new.text())
    monkeypatch.setattr(verify_bundle, "MAX_BYTES", len(case.bundle.text().encode()))
    assert verify_bundle.main([str(bundle), "--anchor", str(anchor)]) == 0
    bundle.write_text(case.bundle.text() + "\n\n")
    assert verify_bundle.main([str(bundle), "--anchor", str(anchor)]) == 2
    monkeypatch.setattr(verify_bundle, "MAX_BYTES", len(case.bundle.text().encode()) - 1)
    bundle.write_text(case.bundle.text() + "\n")
    assert verify_bundle.main([str(bundle), "--anchor", str(anchor)]) == 2


def test_files_and_keys_that_are_none_are_2(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_text(case.bundle.text() + "\n")
    for words in (["missing.json"], [str(tmp_path)], [str(bundle), "--anchor", "missing.json"], [str(bundle), "--public-key", "00"]):
        assert verify_bundle.main(words) == 2
    for content in (b"", b"\x00\xff", case.key.read_bytes(), case.public.read_bytes().replace(b"MCowBQ", b"MCowBR")):
        (tmp_path / "key.pem").write_bytes(content)
        assert verify_bundle.main([str(bundle), "--public-key", str(tmp_path / "key.pem")]) == 2
    assert capsys.readouterr().out == ""
    assert verify_bundle.main([str(bundle)]) == 1


def test_a_terminal_is_given_no_orders(case: Case) -> None:
    with eventstore.open("memory:") as store:
        domain = store.domain(DOMAIN)
        domain.write_value("\x1b[2J\u202e", "\x9b31m\u2066\x07", reason="\x7f\u200f")
        said = judged(store.bundle(DOMAIN, after=0), store.anchor())[1]
    assert said.replace("\n", "").isprintable()
    assert "\\u202e" in said


# ---- Ed25519

# RFC 8032 section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_signatures_of_the_rfc_hold(key: str, message: str, signature: str) -> None:
    assert signed_by(bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature))
    assert not signed_by(bytes.fromhex(key), bytes.fromhex(message) + b"\x00", bytes.fromhex(signature))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(0, 511), st.integers(0, 255))
def test_signatures_hold_where_another_implementation_says_so(seed: bytes, message: bytes, bit: int, key_bit: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert signed_by(key, message, signature)
    altered = (int.from_bytes(signature, "little") ^ 1 << bit).to_bytes(64, "little")
    assert not signed_by(key, message, altered)
    other = (int.from_bytes(key, "little") ^ 1 << key_bit).to_bytes(32, "little")
    assert signed_by(other, message, signature) == holds(other, message, signature)


def holds(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_signature_has_one_form(case: Case) -> None:
    """Of s and s + ORDER, which satisfy the same equation, only the smaller one is a signature."""
    key, message, signature = (bytes.fromhex(each) for each in VECTORS[1])
    s = int.from_bytes(signature[32:], "little") + verify_bundle.ORDER
    assert not signed_by(key, message, signature[:32] + s.to_bytes(32, "little"))
    assert not signed_by((2**255 - 1).to_bytes(32, "little"), message, signature), "y is not below P"
    assert not signed_by((1 | 1 << 255).to_bytes(32, "little"), message, signature), "x is 0, and odd"
    assert not signed_by((2).to_bytes(32, "little"), message, signature), "no point has this y"


# ---- on its own


def test_it_needs_nothing_but_its_file(case: Case, tmp_path: Path) -> None:
    """In an empty folder, with no package to import."""
    program = tmp_path / "verify_bundle.py"
    shutil.copy(verify_bundle.__file__, program)
    (tmp_path / "bundle.json").write_text(signed(case).text() + "\n")
    (tmp_path / "anchor.json").write_text(case.old.text() + "\n")

    def run(*words: str, encoding: str = "utf-8") -> tuple[int, str, str]:
        command = [sys.executable, "-S", str(program), *words]
        alone = {"PYTHONIOENCODING": encoding, "PYTHONSAFEPATH": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False, encoding="utf-8")
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("bundle.json", "--public-key", str(case.public))
    assert (code, err, out.count("PROVEN"), out.count("NOT PROVEN")) == (0, "", 4, 0)
    code, out, err = run("bundle.json", "--anchor", "anchor.json")
    assert (code, err, out.count("NOT PROVEN")) == (1, "", 1)
    code, out, err = run("bundle.json", "--public-key", str(case.public), encoding="ascii")
    assert (code, err, r"\u0431\u043e\u0442" in out) == (0, "", True)
    assert run("anchor.json")[0] == 2
    assert run()[0] == 2
    assert run("--help")[0] == 0


def test_it_imports_the_standard_library_alone_and_is_python_3_9() -> None:
    source = Path(verify_bundle.__file__).read_text(encoding="utf-8")
    module = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(module) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(module) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"__future__"}
