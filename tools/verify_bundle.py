"""Check what a bundle proves: a few events of a log, shown to somebody who has neither the log nor the program that wrote it.

    python3 verify_bundle.py BUNDLE [--anchor FILE] [--public-key KEY]

BUNDLE is the file that `eventstore bundle` wrote. FILE is an anchor of the same log (`eventstore anchor`) that reached you
by another way than the bundle, best of all before there was any reason to alter the log. KEY is the Ed25519 public key,
64 hexadecimal digits or a PEM file, of whoever must have signed the anchor, or the bundle where there is no anchor.

Every event is shown with the word PROVEN or NOT PROVEN. Without an anchor and without a key nothing is proven but that
the bundle agrees with itself, which any forger can bring about. Exit code: 0 all events are proven, 1 not all of them,
2 there was nothing to judge (no bundle, no such file).

This one file needs Python 3.9 and nothing else, and shares no line with eventstore-kit. The bytes are those of its
FORMAT.md: section 4 how an event is hashed, section 10 anchors, section 11 bundles. How it works, from the top down:

    checksum of event n   c_n = SHA-256(c_n-1, then every byte of the event); a bundle holds c_n-1 and the event
    tree over c_0 .. c_N  RFC 9162: leaf SHA-256(00 c_n), node SHA-256(01 left right); twenty hashes lead from a leaf to the root
    anchor                position N, checksum and root, kept where nobody who can write the log can reach
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import struct
import sys
import time
from collections.abc import Callable
from hashlib import sha256, sha512
from typing import Any, NamedTuple

FORMAT = 1
MAX_BYTES = 64 * 2**20
OPS = ("put", "remove", "open", "rules", "redact", "seal", "archive", "loss")


class UnjudgedError(Exception):
    """It is no bundle, no anchor, no key."""


class RefusedError(Exception):
    """It is one, and it does not prove what it says."""


# ---- what the files must look like: exactly one text says one thing


def parse(content: bytes, what: str) -> Any:
    """JSON in the one way it can be written: members sorted, none twice, no white space, no fractions."""
    content = content[:-1] if content.endswith(b"\n") else content
    if len(content) > MAX_BYTES:
        raise UnjudgedError(f"{what} has more than {MAX_BYTES:,} bytes")
    try:
        found = json.loads(content.decode(), parse_int=_integer, parse_float=_no_number, parse_constant=_no_number)
        exact = json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() == content
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnjudgedError(f"{what} cannot be read: {type(error).__name__}, {str(error)[:200]}") from error
    if not exact:
        raise UnjudgedError(f"{what} is not as it was written: one line, members sorted and none twice, no white space")
    return found


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is no whole number")


Rule = Callable[[Any], bool]


def integer(lowest: int) -> Rule:
    return lambda value: type(value) is int and lowest <= value < 2**63


def hexadecimal(count: int) -> Rule:
    return lambda value: isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * count}}}", value) is not None


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_path(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 128 and all(map(hexadecimal(32), value))


def is_data(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and list(value) == ["base64"] and is_text(value["base64"]))


def is_list(value: Any) -> bool:
    return isinstance(value, list)


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def require(value: Any, what: str, needed: dict[str, Rule], optional: dict[str, Rule]) -> None:
    """`value` is an object with all of `needed`, perhaps some of `optional`, nothing else, and each is what it must be."""
    rules = {**needed, **optional}
    if not isinstance(value, dict) or not set(needed) <= set(value) <= set(rules):
        raise UnjudgedError(f"{what} does not have the members it must have, or has others")
    for name, each in value.items():
        if not rules[name](each):
            raise UnjudgedError(f"{what}: {name} is not what it must be")


def require_event(value: Any, what: str) -> None:
    require(
        value,
        what,
        {"position": integer(0), "prev": integer(0), "recorded_us": integer(0), "op": OPS.__contains__, "key": is_text, "path": is_path},
        {
            "when_us": integer(-(2**63)),
            "meta": is_text,
            "salt": hexadecimal(16),
            "digest": hexadecimal(32),
            "data": is_data,
            "before": hexadecimal(32),
        },
    )


def require_anchor(value: Any, what: str) -> None:
    members = {"format": integer(0), "store_id": hexadecimal(16), "made_us": integer(0), "heads": is_object}
    require(value, what, members, {"signature": is_object})
    for domain, head in value["heads"].items():
        require(head, f"{what}, {shown(domain)}", {"position": integer(0), "checksum": hexadecimal(32)}, {"root": hexadecimal(32)})
    if "signature" in value:
        require(value["signature"], f"{what}, signature", {"key": hexadecimal(32), "signature": hexadecimal(64)}, {})
    if value["format"] != FORMAT:
        raise UnjudgedError(f"{what} is of format {value['format']}, this program knows format {FORMAT}")


def require_bundle(value: Any) -> None:
    require(value, "the bundle", {"format": integer(0), "anchor": is_object, "birth": is_object, "events": is_list}, {"since": is_object})
    if value["format"] != FORMAT:
        raise UnjudgedError(f"the bundle is of format {value['format']}, this program knows format {FORMAT}")
    require_anchor(value["anchor"], "the bundle's anchor")
    heads = value["anchor"]["heads"]
    if len(heads) != 1 or not all("root" in head for head in heads.values()):
        raise UnjudgedError("the bundle's anchor must name one domain, with its root")
    require_event(value["birth"], "the birth row")
    if value["birth"]["position"] != 0 or "before" in value["birth"]:
        raise UnjudgedError("the birth row stands at another position than 0, or behind another row")
    if "since" in value:
        require(value["since"], "since", {"position": integer(0), "path": is_path}, {})
    before = 0
    for event in value["events"]:
        require_event(event, "an event")
        if event["position"] <= before or "before" not in event:
            raise UnjudgedError("the events do not stand in the order of their positions, or one lacks the checksum before it")
        before = event["position"]
    if not value["events"]:
        raise UnjudgedError("the bundle holds no event")


# ---- what an event's checksum must be (FORMAT.md section 4)


def checksum_of(event: dict[str, Any]) -> bytes:
    """c_n, from the event's own bytes and the checksum before it. Raises RefusedError for what no event can be."""
    op, key, meta = event["op"].encode(), event["key"].encode(), event.get("meta", "").encode()
    has_codec = "meta" in event and "codec" in meta_of(event)
    if len(key) >= 2**16:
        raise RefusedError("its key is longer than a key can be")
    flags = ("when_us" in event) | ("data" in event or "digest" in event) << 1 | ("meta" in event) << 2 | has_codec << 3
    header = struct.pack(
        ">QQQqBBHI", event["position"], event["prev"], event["recorded_us"], event.get("when_us", 0), flags, len(op), len(key), len(meta)
    )
    before = bytes.fromhex(event["before"]) if event["position"] else b"eventstore/%d\x00" % FORMAT
    return sha256(before + header + op + key + meta + payload_of(event, has_codec)).digest()


def payload_of(event: dict[str, Any], has_codec: bool) -> bytes:
    """What stands for the data: SHA-256(salt, data), or what is left of that once the data was erased."""
    if "data" not in event:
        if "salt" in event:
            raise RefusedError("it has a salt and no data")
        return bytes.fromhex(event.get("digest", "00" * 32))
    if "digest" in event or "salt" not in event:
        raise RefusedError("its data stands beside a digest, or without a salt")
    if isinstance(event["data"], dict) != has_codec:
        raise RefusedError("bytes need a codec in meta, and text must have none")
    return sha256(bytes.fromhex(event["salt"]) + data_of(event)).digest()


def data_of(event: dict[str, Any]) -> bytes:
    data = event["data"]
    if isinstance(data, str):
        return data.encode()
    try:
        blob = base64.b64decode(data["base64"], validate=True)
    except ValueError as error:
        raise RefusedError("its data is no base64") from error
    if base64.b64encode(blob).decode() != data["base64"]:
        raise RefusedError("its data is not in the one base64 that these bytes have")
    return blob


def meta_of(event: dict[str, Any]) -> dict[str, Any]:
    try:
        meta = json.loads(event["meta"], parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise RefusedError("its meta is no JSON") from error
    if not isinstance(meta, dict):
        raise RefusedError("its meta is no object")
    return meta


# ---- what a path proves (RFC 9162 sections 2.1.3.2 and 2.1.4.2)


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def leads_to(root: bytes, checksum: bytes, index: int, size: int, path: list[bytes]) -> bool:
    """Whether the path leads from leaf `index` of a tree of `size` leaves to its root."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, sha256(b"\x00" + checksum).digest()
    for other in path:
        if last == 0:
            return False
        if at % 2 == 1 or at == last:
            found = node(other, found)
            while at % 2 == 0 and at > 0:
                at, last = at // 2, last // 2
        else:
            found = node(found, other)
        at, last = at // 2, last // 2
    return last == 0 and found == root


def extends(old_root: bytes, old_size: int, root: bytes, size: int, path: list[bytes]) -> bool:
    """Whether the path shows that the tree of `size` leaves begins with the one of `old_size` leaves."""
    if not 0 < old_size < size:
        return False
    at, last = old_size - 1, size - 1
    while at % 2 == 1:
        at, last = at // 2, last // 2
    hashes = path if at else [old_root, *path]
    if not hashes:
        return False
    old_found = found = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            return False
        if at % 2 == 1 or at == last:
            old_found, found = node(other, old_found), node(other, found)
            while at % 2 == 0 and at > 0:
                at, last = at // 2, last // 2
        else:
            found = node(found, other)
        at, last = at // 2, last // 2
    return last == 0 and old_found == old_root and found == root


# ---- who signed (RFC 8032, Ed25519): x and y on a curve over the integers modulo P, a point kept as (x, y, 1, x * y)

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int, int, int]


def point_of(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little") & 2**255 - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    odd = encoded[31] >> 7
    if x * x % P != square or (x == 0 and odd):
        return None
    if x % 2 != odd:
        x = P - x
    return (x, y, 1, x * y % P)


def encoded(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def added(one: Point, other: Point) -> Point:
    a, b = (one[1] - one[0]) * (other[1] - other[0]) % P, (one[1] + one[0]) * (other[1] + other[0]) % P
    c, d = 2 * one[3] * other[3] * D % P, 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = added(total, point)
        point, number = added(point, point), number >> 1
    return total


def signed_by(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the owner of the key made this signature of the message: [s]B = R + [h]A."""
    base, key = point_of((4 * pow(5, -1, P) % P).to_bytes(32, "little")), point_of(public_key)
    s = int.from_bytes(signature[32:], "little")
    if base is None or key is None or s >= ORDER:
        return False
    h = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    minus_key = (P - key[0], key[1], 1, P - key[3])
    return encoded(added(times(s, base), times(h, minus_key))) == signature[:32]


def require_signature(anchor: dict[str, Any], what: str, public_key: bytes | None) -> str:
    """Make sure that an anchor's signature holds, and is by this key if one was given; says by whom it is."""
    if "signature" not in anchor:
        if public_key is not None:
            raise RefusedError(f"{what} is not signed, expected a signature by {public_key.hex()}")
        return "not signed"
    said = anchor["signature"]
    if public_key is not None and said["key"] != public_key.hex():
        raise RefusedError(f"{what} is signed by {said['key']}, expected {public_key.hex()}")
    unsigned = {name: member for name, member in anchor.items() if name != "signature"}
    message = json.dumps(unsigned, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    if not signed_by(bytes.fromhex(said["key"]), b"eventstore-anchor/%d\x00" % FORMAT + message, bytes.fromhex(said["signature"])):
        raise RefusedError(f"the signature of {what} is false: it was altered or forged")
    return f"signed by {said['key']}" + (", a key that nobody vouched for" if public_key is None else "")


# ---- the judgement


class Ground(NamedTuple):
    """What a proof can stand on: up to `position`, because of `words`."""

    position: int
    words: str


class Judged(NamedTuple):
    """One event, and the reason why it is not proven; None if it is."""

    event: dict[str, Any]
    reason: str | None


def judge(bundle: dict[str, Any], anchor: dict[str, Any] | None, public_key: bytes | None) -> tuple[Ground | str, list[Judged]]:
    """What the bundle stands on, or why on nothing; and each of its events."""
    ground: Ground | str
    try:
        require_birth(bundle)
        ground = ground_of(bundle, anchor, public_key)
    except RefusedError as refusal:
        ground = str(refusal)
    return ground, [Judged(event, why_not(event, bundle, ground)) for event in bundle["events"]]


def require_birth(bundle: dict[str, Any]) -> None:
    """The first row of the log says whose log it is: it must be the one that the bundle's anchor names."""
    birth, anchor = bundle["birth"], bundle["anchor"]
    reason = misfit(birth, bundle)
    if reason is not None:
        raise RefusedError(f"the birth row is not this log's: {reason}")
    try:
        said = json.loads(birth.get("data", "null"))
    except (ValueError, TypeError, RecursionError):
        said = None
    expected = {"store_id": anchor["store_id"], "domain": domain_of(bundle), "format": FORMAT}
    fits = isinstance(said, dict) and {name: said.get(name) for name in expected} == expected
    if not fits or (birth["op"], birth["key"]) != ("open", "[]"):
        raise RefusedError("the birth row is of another log")


def ground_of(bundle: dict[str, Any], anchor: dict[str, Any] | None, public_key: bytes | None) -> Ground | str:
    """The anchor that came by another way, or else the signature; a sentence where there is neither."""
    head = bundle["anchor"]["heads"][domain_of(bundle)]
    by = require_signature(bundle["anchor"], "the bundle", public_key if anchor is None else None)
    if anchor is None:
        if public_key is None:
            return f"the bundle agrees with itself ({by}), but nothing came by another way: give an anchor, or the signer's key"
        return Ground(head["position"], f"on the word of whoever holds the key {public_key.hex()}")
    by = require_signature(anchor, "the anchor", public_key)
    if anchor["store_id"] != bundle["anchor"]["store_id"] or domain_of(bundle) not in anchor["heads"]:
        raise RefusedError("the anchor is of another log")
    kept = anchor["heads"][domain_of(bundle)]
    words = f"by the anchor of {moment(anchor['made_us'])} ({by}), if that came by another way than the bundle"
    if kept == head:
        return Ground(kept["position"], words)
    if "root" not in kept:
        raise RefusedError("the anchor was made without roots: nothing short can be proven by it")
    if kept["position"] > head["position"]:
        return "the bundle is older than the anchor: ask for one made at the anchor or after it"
    if kept["position"] == head["position"]:
        raise RefusedError("the anchor says something else of the same position: the log was altered")
    since = bundle.get("since")
    if since is None or since["position"] != kept["position"]:
        return "the bundle does not show that its log continues the anchored one: ask for it with `--since`, and this anchor"
    roots = bytes.fromhex(kept["root"]), bytes.fromhex(head["root"])
    if not extends(roots[0], kept["position"] + 1, roots[1], head["position"] + 1, [bytes.fromhex(each) for each in since["path"]]):
        raise RefusedError("the bundle's log is not the anchored one continued: it was altered before the anchor")
    return Ground(kept["position"], words)


def why_not(event: dict[str, Any], bundle: dict[str, Any], ground: Ground | str) -> str | None:
    """Why an event is not proven; None if it is."""
    reason = misfit(event, bundle)
    if reason is not None:
        return reason
    if isinstance(ground, str):
        return ground
    if event["position"] > ground.position:
        return f"it came after position {ground.position}, up to which the anchor reaches: whoever could write the log could add it"
    return None


def misfit(event: dict[str, Any], bundle: dict[str, Any]) -> str | None:
    """Why an event is not a leaf of the bundle's tree; None if it is."""
    head = bundle["anchor"]["heads"][domain_of(bundle)]
    try:
        checksum = checksum_of(event)
    except RefusedError as refusal:
        return str(refusal)
    path = [bytes.fromhex(each) for each in event["path"]]
    if not leads_to(bytes.fromhex(head["root"]), checksum, event["position"], head["position"] + 1, path):
        return "its bytes do not lead to the root: it was altered, stood elsewhere, or is of another log"
    if event["position"] == head["position"] and checksum.hex() != head["checksum"]:
        return "it stands at the end of the log, whose checksum is another"
    return None


def domain_of(bundle: dict[str, Any]) -> str:
    (domain,) = bundle["anchor"]["heads"]
    return str(domain)


# ---- words for a person; what is in an event was written by strangers, and is shown without being obeyed


def shown(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text)


def moment(us: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(us // 1_000_000)) + f".{us % 1_000_000:06}Z"
    except (OverflowError, ValueError, OSError):
        return f"{us} microseconds since 1970"


def described(judged: Judged) -> list[str]:
    """What the event is, when it was, who and why, its value; and the verdict."""
    event = judged.event
    lines = [f"{'PROVEN' if judged.reason is None else 'NOT PROVEN'}  position {event['position']}: {event['op']} {shown(event['key'])}"]
    if judged.reason is not None:
        lines.append(f"    because   {judged.reason}")
    lines.append(f"    recorded  {moment(event['recorded_us'])}")
    if "when_us" in event:
        lines.append(f"    when      {moment(event['when_us'])}, as the writer says")
    if "meta" in event:
        lines.append(f"    meta      {shown(event['meta'])}")
    if "digest" in event:
        lines.append("    value     not shown: it was erased or left out, and this is what is left of it: " + event["digest"])
    elif isinstance(event.get("data"), dict):
        lines.append(f"    value     bytes in base64, as the codec in meta says: {shown(event['data']['base64'])}")
    elif "data" in event:
        lines.append(f"    value     {shown(event['data'])}")
    return lines


def summary(ground: Ground | str, judged: list[Judged]) -> list[str]:
    """What is proven, and what is not."""
    proven = [each.event["position"] for each in judged if each.reason is None]
    lines = [f"{len(proven)} of {len(judged)} events proven" + (f", {ground.words}" if isinstance(ground, Ground) and proven else "")]
    if not proven:
        return lines
    lines.append("proven: each stood in this log at its position, with these very bytes")
    runs = [[proven[0], proven[0]]]
    for position in proven[1:]:
        if position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    lines += [f"proven: from {first} to {last} nothing is left out" for first, last in runs if first < last]
    lines.append("not proven: that other positions hold nothing that matters; that what the events say is true, their times included")
    return lines


def report(bundle: dict[str, Any], anchor: dict[str, Any] | None, public_key: bytes | None) -> tuple[int, list[str]]:
    """The exit code, and every line to print."""
    ground, judged = judge(bundle, anchor, public_key)
    own = bundle["anchor"]
    head = own["heads"][domain_of(bundle)]
    end = f"position {head['position']} at {moment(own['made_us'])}"
    lines = [f"log {shown(domain_of(bundle))} of store {own['store_id']}, which the bundle says ended with {end}"]
    for each in judged:
        lines += described(each)
    lines += summary(ground, judged)
    return int(any(each.reason is not None for each in judged)), lines


# ---- the command


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 2)
    except OSError as error:
        raise UnjudgedError(f"{path}: {error.strerror or error}") from error


def key_of(text: str) -> bytes:
    """A public key: 64 hexadecimal digits, or a PEM file as openssl writes it."""
    if hexadecimal(32)(text.lower()):
        return bytes.fromhex(text)
    pem = "-----BEGIN PUBLIC KEY-----(.+)-----END PUBLIC KEY-----"
    body = re.fullmatch(pem, read(text).decode("ascii", "replace").strip(), re.DOTALL)
    try:
        der = base64.b64decode("".join(body[1].split()), validate=True) if body else b""
    except ValueError:
        der = b""
    if len(der) != 44 or der[:12].hex() != "302a300506032b6570032100":
        raise UnjudgedError(f"{text} is no Ed25519 public key: neither 64 hexadecimal digits nor a PEM file of one")
    return der[12:]


def main(words: list[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(description="Check what a bundle of eventstore-kit proves.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--anchor", metavar="FILE", help="an anchor of the log that reached you by another way")
    parser.add_argument("--public-key", metavar="KEY", help="who must have signed the anchor, or else the bundle: hexadecimal or PEM")
    given = parser.parse_args(words)
    try:
        public_key = None if given.public_key is None else key_of(given.public_key)
        anchor = None
        if given.anchor is not None:
            anchor = parse(read(given.anchor), "the anchor")
            require_anchor(anchor, "the anchor")
        bundle = parse(read(given.bundle), "the bundle")
        require_bundle(bundle)
    except UnjudgedError as error:
        print(f"nothing to judge: {shown(str(error))}", file=sys.stderr)
        return 2
    code, lines = report(bundle, anchor, public_key)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal whose encoding lacks a character still gets the rest
        sys.stdout.reconfigure(errors="backslashreplace")
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
