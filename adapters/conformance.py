"""What every engine must do: one check for each sentence of the docstrings in log.py that an engine can break.

Hand each check a fresh engine of an empty store. It returns nothing, or raises AssertionError with the sentence that does
not hold. Any runner will do; with pytest:

    @pytest.mark.parametrize("check", CHECKS + LOCAL_CHECKS, ids=attrgetter("__name__"))
    def test_engine(check: Check, tmp_path: Path) -> None:
        check(MyEngine(tmp_path))

CHECKS are for every engine, LOCAL_CHECKS for those whose writing() locks out other writers; they wait for a lock in vain, so
let the engine give up after about a second. A check leaves its logs open. What opening refuses, and what a kill leaves, has
tests of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import msgspec

from eventstore.carried import CarriedDigest, prove_carried
from eventstore.codec import FORMAT, GENESIS, check, check_linked, erased, read_birth, seal, seal_system
from eventstore.errors import (
    ChecksumError,
    ClosedError,
    CompactedError,
    ConfigError,
    ConflictError,
    ContractError,
    EngineError,
    EventStoreError,
    GapError,
    NotFoundError,
    UnavailableError,
)
from eventstore.log import PAGE, Engine, EventLog
from eventstore.model import Durability, Event, Head, Linked

Check = Callable[[Engine], None]

CHECKS: list[Check] = []
"""For every engine."""

LOCAL_CHECKS: list[Check] = []
"""For engines whose writing() locks out every other writer."""

_DURABLE: tuple[Durability, ...] = ("process", "power", "power+")


def _every_engine(check: Check) -> Check:
    CHECKS.append(check)
    return check


def _local_engines(check: Check) -> Check:
    LOCAL_CHECKS.append(check)
    return check


# ---- creation and the head


@_every_engine
def check_a_new_log_holds_its_birth_row_and_nothing_else(engine: Engine) -> None:
    """`A log is created with its birth row at position 0, so head() is never empty.`"""
    log = engine.open_log("signal")
    births = log.get([0])
    _same([event.position for event in births], [0], "get([0]) of a new log gives its birth row")
    birth = read_birth(births[0], "signal")
    _same(birth.domain, "signal", "the birth row names the domain")
    _same(log.head(), _head_of(births[0]), "the head of a new log is its birth row")
    _same(list(log.read()), [], "reading starts after the birth row")


@_every_engine
def check_a_log_says_what_it_is(engine: Engine) -> None:
    """`domain`, `durability`, `rule` and `accepted` of a new log."""
    replaced, first = engine.open_log("signal"), engine.open_log("facts", "first")
    _same((replaced.domain, first.domain), ("signal", "facts"), "a log knows its domain")
    _same((replaced.rule, first.rule), ("replace", "first"), "a log knows its write rule; without one it is 'replace'")
    _same(read_birth(first.get([0])[0], "facts").write, "first", "the birth row says the write rule")
    _require(replaced.durability in ("memory", *_DURABLE), f"durability is a level, not {replaced.durability!r}")
    _same(replaced.accepted, None, "a new log has accepted no loss")


@_every_engine
def check_a_log_opens_under_its_own_rule_alone(engine: Engine) -> None:
    """`write is the rule for a new log (None: "replace") and what an existing one must have (None: any).`"""
    engine.open_log("signal")
    engine.open_log("facts", "first")
    _same(engine.open_log("facts").rule, "first", "a log that is opened without a rule has the one it was made with")
    _same(engine.open_log("facts", "first").rule, "first", "a log opens under its own rule")
    _raises(partial(engine.open_log, "facts", "replace"), ContractError, "a log does not open under another rule")
    _raises(partial(engine.open_log, "signal", "first"), ContractError, "a log made without a rule does not open under 'first'")


@_every_engine
def check_the_logs_of_a_store_are_listed(engine: Engine) -> None:
    """`The names of the logs that exist, sorted.`"""
    _same(engine.domains(), [], "an empty store has no logs")
    for name in ("signal", "b.2", "a-1"):
        engine.open_log(name)
    _same(engine.domains(), ["a-1", "b.2", "signal"], "every log that was opened is listed, sorted")


@_every_engine
def check_an_inspected_log_is_there_for_reading(engine: Engine) -> None:
    """`The log of a domain for reading alone`; one that does not exist is not made."""
    events = _append(engine.open_log("signal"), 3)
    with engine.inspect("signal") as log:
        _same([*log.get([0]), *log.read()], [*engine.open_log("signal").get([0]), *events], "an inspected log holds what was appended")
        _same(list(log.faults()), [], "an inspected log tells of its faults")
    _append(engine.open_log("signal"), 1)
    _raises(lambda: engine.inspect("nothing").__enter__(), NotFoundError, "a log that does not exist cannot be inspected")
    _same(engine.domains(), ["signal"], "looking for a log does not make it")


@_every_engine
def check_an_adopted_log_starts_from_its_own_birth_row(engine: Engine) -> None:
    """`A new log that starts from a sealed birth row, to be filled with events; a domain once the block ends well.`"""
    birth = _birth(engine, "copied")
    with engine.adopting("copied", birth) as log:
        _same(log.get([0]), [birth], "the birth row is stored as it was given")
        _same(log.head(), _head_of(birth), "and is the head")
        events = _append(log, PAGE + 1)
        _same(engine.domains(), [], "a log that is being adopted is no domain yet")
    _same(engine.domains(), ["copied"], "an adopted log is a domain")
    log = engine.open_log("copied")
    _same(log.rule, "first", "its rule is that of the birth row")
    _same([*log.get([0]), *log.read()], [birth, *events], "its events are those that were adopted, the birth row included")
    _append(log, 1)


@_every_engine
def check_an_adoption_that_raises_leaves_nothing(engine: Engine) -> None:
    """`gone if it raises`: the name is free as before."""
    with contextlib.suppress(ZeroDivisionError), engine.adopting("copied", _birth(engine, "copied")) as log:
        _append(log, 2)
        raise ZeroDivisionError
    _same(engine.domains(), [], "an adoption that raised left no domain")
    with engine.adopting("copied", _birth(engine, "copied")) as log:
        events = _append(log, 1)
    _same(list(engine.open_log("copied").read()), events, "the same name can be adopted after that")


@_every_engine
def check_the_head_is_the_last_event(engine: Engine) -> None:
    """`The last event's position and checksum, as of now.`"""
    log = engine.open_log("signal")
    for count in (1, 3):
        events = _append(log, count)
        _same(log.head(), _head_of(events[-1]), "the head is the last event appended")


@_every_engine
def check_the_head_has_moved_after_an_append(engine: Engine) -> None:
    """`False only if nothing was acknowledged after position.`"""
    log = engine.open_log("signal")
    for head in range(1, 4):
        _append(log, 1)
        for position in range(head):
            _require(log.moved(position), f"moved({position}) is true where the head is {head}")


@_every_engine
def check_a_second_handle_sees_what_the_first_appends(engine: Engine) -> None:
    """`as of now, other processes' appends included`, in every reading method, however late it was opened."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    for writer, reader in ((log, other), (other, log), (log, other)):
        before = reader.head().position
        events = _append(writer, 2)
        _require(reader.moved(before), "moved() of another handle is true after an append")
        _same(reader.head(), _head_of(events[-1]), "head() of another handle is the new head")
        _same(list(reader.read(before)), events, "read() of another handle gives the new events")
        _same(reader.get([events[0].position]), events[:1], "get() of another handle gives the new events")
        _same(_events_of(reader.chain(events[-1].position, limit=1)), events[1:], "chain() of another handle gives the new events")


@_every_engine
def check_logs_of_one_store_are_apart(engine: Engine) -> None:
    """`An ordered list of sealed events`: each log has its own."""
    log, other = engine.open_log("signal"), engine.open_log("risk")
    events = _append(log, 2)
    _same(other.head().position, 0, "an append to one log leaves the head of another alone")
    _same(list(other.read()), [], "an append to one log does not appear in another")
    _same(list(log.read()), events, "it appears in its own")


# ---- reading


@_every_engine
def check_events_come_back_as_they_were_stored(engine: Engine) -> None:
    """`as stored`: every field, whatever is in it."""
    log = engine.open_log("signal")
    previous = log.head()
    shapes: list[dict[str, Any]] = [
        {"data": '{"a":1}'},
        {"data": ' [1,\t"\\ud83d", -0.0, 1e400 , 99999999999999999999999]\n'},
        {"data": '"ключ \U0001f511 \u202e \x7f"', "key": '["ключ\\"\\\\",7,""]', "meta": '{"actor":"бот"}'},
        {"data": "x" * 3_000_000, "key": '["large"]'},
        {"data": b"\x00\xff blob", "meta": '{"codec":"aes-gcm:1"}'},
        {"data": b"", "meta": '{"codec":"none"}'},
        {"data": "0", "when_us": 0},
        {"data": "0", "when_us": -(2**63)},
        {"data": "0", "when_us": 2**63 - 1},
        {"data": None, "op": "remove", "when_us": -1},
        {"data": "{}", "op": "rules", "key": "[]"},
    ]
    events: list[Event] = []
    for shape in shapes:
        events.append(_sealed(previous, **shape))
        previous = _head_of(events[-1])
    _write(log, events)
    for stored, event in zip(log.read(), events, strict=True):
        _same(stored, event, f"the event at {event.position} comes back field by field as it was given")
    _same(log.get([event.position for event in events]), events, "get() gives the same")


@_every_engine
def check_events_come_back_unchecked(engine: Engine) -> None:
    """`unchecked`: an engine hides nothing from verify, a false checksum least of all."""
    log = engine.open_log("signal")
    event = _sealed(Head(log.head().position, b"\x55" * 32))
    _write(log, [event])
    _same(list(log.read()), [event], "an event whose checksum does not follow comes back as it is stored")
    _raises(lambda: check(_head_of(log.get([0])[0]), log.get([1])[0], "signal"), EventStoreError, "and it is check() that refuses it")


@_every_engine
def check_read_keeps_its_bounds(engine: Engine) -> None:
    """`The events with after < position <= until, in order, at most limit.`"""
    log = engine.open_log("signal")
    events = _append(log, 12)
    for after in (-(2**62), -1, 0, 1, 5, 11, 12, 13, 2**62, 2**80):
        for until in (None, 0, 1, 5, 6, 12, 13, 2**62, 2**80):
            for limit in (None, 0, 1, 3, 12, 2**62):
                wanted = [event for event in events if after < event.position and (until is None or event.position <= until)][:limit]
                found = list(log.read(after, until=until, limit=limit))
                _same(found, wanted, f"read({after}, until={until}, limit={limit}) of 12 events")


@_every_engine
def check_read_goes_on_across_pages(engine: Engine) -> None:
    """`The events ... in order`: none lost or doubled where an engine takes a new page."""
    log = engine.open_log("signal")
    _append(log, 2 * PAGE + 3)
    _same([event.position for event in log.read()], list(range(1, 2 * PAGE + 4)), "read() of more than two pages")
    for after, until in ((PAGE - 1, PAGE + 1), (1, 2 * PAGE), (PAGE, 2 * PAGE + 1)):
        found = [event.position for event in log.read(after, until=until)]
        _same(found, list(range(after + 1, until + 1)), f"read({after}, until={until}) around the end of a page")
    found = [event.position for event in log.read(1, limit=PAGE + 1)]
    _same(found, list(range(2, PAGE + 3)), "read(1, limit=PAGE + 1)")


@_every_engine
def check_read_pages_large_values_too(engine: Engine) -> None:
    """`in order, at most limit`: also where a page is cut short because its values are large."""
    log = engine.open_log("signal")
    _append(log, 260, data='"' + "x" * 50_000 + '"')
    _same([event.position for event in log.read()], list(range(1, 261)), "read() of 260 large values")
    _same([event.position for event in log.read(3, limit=205)], list(range(4, 209)), "read(3, limit=205) of large values")
    _same([event.position for event in log.read(101, until=201)], list(range(102, 202)), "read(101, until=201) of large values")


@_every_engine
def check_a_reading_under_way_blocks_no_writer(engine: Engine) -> None:
    """`Holds no lock between two events, so a slow reader never blocks a writer`; what it gives stays in order, without a gap."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    _append(log, PAGE + 2)
    reading = log.read()
    seen = [next(reading).position]
    _append(log, 1)
    _append(other, 1)
    seen += [event.position for event in reading]
    _same(seen, list(range(1, len(seen) + 1)), "a reading with appends in between gives every event once, in order")
    _require(len(seen) >= PAGE + 2, "a reading with appends in between gives what was there when it began")


@_every_engine
def check_a_reading_under_way_holds_no_snapshot(engine: Engine) -> None:
    """`Holds no snapshot between two events`: what is erased meanwhile does not come out of it pages later."""
    log = engine.open_log("signal")
    last = _append(log, 3 * PAGE)[-1]
    reading = log.read()
    next(reading)
    with log.writing() as head:
        log.append([_sealed(head)], after=head, erase=[last.position])
    found = {event.position: event for event in reading}
    _same(found[last.position], erased(last), "an event erased three pages ahead of a reading comes out erased")


@_every_engine
def check_get_gives_each_event_once_in_order(engine: Engine) -> None:
    """`The events at positions, in ascending order of position; those that do not exist are left out.`"""
    log = engine.open_log("signal")
    every = [*log.get([0]), *_append(log, 40)]
    questions: list[Sequence[int]] = [
        [], [3], [0], [41], [-1], [3, 3], [5, 2], [2, 5], [41, 2], [2, 41], (1, 1, 1), [9, 1, 9, 5, 1], [7, -3, 41, 0, 2**62, 7],
        range(38, 50), range(5, 0, -1), [2**63, 2], [2**80, -(2**80), 4],
    ]  # fmt: skip
    for positions in questions:
        wanted = [event for event in every if event.position in positions]
        _same(log.get(positions), wanted, f"get({positions!r}) of positions 0 to 40")
        _same(_events_of(log.linked(positions)), wanted, f"linked({positions!r}) gives the same events")


@_every_engine
def check_checksums_are_one_a_position(engine: Engine) -> None:
    """`The checksums alone of the events with after < position <= until, in order. One for each position: raises GapError.`"""
    log = engine.open_log("signal")
    every = [event.checksum for event in (*log.get([0]), *_append(log, 2 * PAGE + 3))]
    last = len(every) - 1
    for after, until in ((-1, last), (-1, 0), (0, 1), (0, last), (PAGE - 1, PAGE + 1), (last - 1, last), (last, last), (7, 3), (-1, -1)):
        _same(list(log.checksums(after, until)), every[after + 1 : until + 1], f"checksums({after}, {until}) of {last} events")
    for until in (last + 1, 2**62, 2**80):
        _raises(partial(_listed, log, last - 1, until), GapError, f"checksums up to {until}, which is not there")
    false = _sealed(Head(last, b"\x55" * 32))
    _write(log, [false])
    _same(list(log.checksums(last, last + 1)), [false.checksum], "a checksum that does not follow comes as it is stored")


@_every_engine
def check_get_takes_many_positions(engine: Engine) -> None:
    """`The events at positions`, be they more than a statement has parameters."""
    log = engine.open_log("signal")
    _append(log, PAGE)
    found = [event.position for event in log.get(range(40_000, -40_000, -1))]
    _same(found, list(range(PAGE + 1)), "get() of 80,000 positions")
    found = [each.event.position for each in log.linked(range(40_000, -40_000, -1))]
    _same(found, list(range(PAGE + 1)), "linked() of 80,000 positions")


@_every_engine
def check_what_is_linked_proves_itself(engine: Engine) -> None:
    """`each with the checksum of the event before it: what proves it alone.`"""
    log = engine.open_log("signal")
    _append(log, 5, data="[" + "1," * 5_000 + "1]")
    every = [*log.get([0]), *log.read()]
    before = [GENESIS.checksum, *(event.checksum for event in every)]
    for positions in ([0], [1], [5], [3, 1], range(6)):
        wanted = [Linked(before[event.position], event) for event in every if event.position in positions]
        _same(log.linked(positions), wanted, f"linked({positions!r}) gives events and the checksums before them")
    for each in log.linked(range(6)):
        _same(check_linked(each, "signal"), _head_of(each.event), "and each proves itself")


@_every_engine
def check_a_chain_is_one_keys_history_newest_first(engine: Engine) -> None:
    """`The event at position, then its prev, its prev's prev ...: one key's history, newest first.`"""
    log = engine.open_log("signal")
    histories = _interleaved(log, rounds=4)
    for history in histories.values():
        history.reverse()
        for index, event in enumerate(history):
            _same(log.chain(event.position, limit=100), _linked(log, history[index:]), f"chain({event.position}) of {event.key}")
    _same(log.chain(2**62, limit=100), [], "the chain of a position that does not exist is empty")
    _same(log.chain(0, limit=100), log.linked([0]), "the chain of the birth row is the birth row")


@_every_engine
def check_a_chain_keeps_its_limit(engine: Engine) -> None:
    """`at most limit.`"""
    log = engine.open_log("signal")
    history = _interleaved(log, rounds=5)['["a"]'][::-1]
    for limit in (0, 1, 2, 4, 5, 6, 2**31):
        found = _events_of(log.chain(history[0].position, limit=limit))
        _same(found, history[:limit], f"chain() with limit {limit} of 5 events")


@_every_engine
def check_a_chain_is_as_long_as_a_history(engine: Engine) -> None:
    """`its prev, its prev's prev ...`: no depth is too deep."""
    log = engine.open_log("signal")
    _append(log, 2 * PAGE + 1)
    found = [each.event.position for each in log.chain(2 * PAGE + 1, limit=10 * PAGE)]
    _same(found, list(range(2 * PAGE + 1, 0, -1)), "a chain of 2,001 events")


# ---- appending


@_every_engine
def check_appended_events_follow_the_head(engine: Engine) -> None:
    """`Store all of events directly after after`: one, many, and in one go."""
    log = engine.open_log("signal")
    events = [*_append(log, 1), *_append(log, 2 * PAGE), *_append(log, 1)]
    _same(list(log.read()), events, "everything that was appended, in order")


@_every_engine
def check_an_append_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    """`or none of them`: an append that raises anything at all has written and erased nothing, and the next one works."""
    log = engine.open_log("signal")
    standing = _append(log, 3)
    for spoiled, erase in (({"data": '"\ud83d"'}, [1]), ({"when_us": 2**63}, [2]), ({}, [3, 999])):
        with log.writing() as head:
            first = _sealed(head)
            second = _sealed(_head_of(first))
            events = [first, second, _event_like(_sealed(_head_of(second)), **spoiled)]
            try:
                log.append(events, after=head, erase=erase)
            except Exception as error:  # noqa: BLE001 - whatever an engine raises: what it leaves behind is what is judged
                _same(list(log.read()), standing, f"nothing was written or erased by an append that raised {type(error).__name__}")
                _same(log.head(), head, f"the head stands after an append that raised {type(error).__name__}")
            else:
                standing = [erased(event) if event.position in erase else event for event in standing] + events
                _same(list(log.read()), standing, "everything is there after an append that raised nothing")
        standing += _append(log, 1)
        _same(list(log.read()), standing, "the next append works after one that failed")


@_every_engine
def check_a_stale_append_is_refused(engine: Engine) -> None:
    """`Raises ConflictError when the head is not after`, and has written nothing: older, newer, or another event there."""
    log = engine.open_log("signal")
    born = log.head()
    events = _append(log, 2)
    for stale in (born, _head_of(events[0]), Head(2, b"\x55" * 32), Head(3, events[1].checksum), Head(2**40, b"\x55" * 32)):
        with log.writing():
            late = [_sealed(stale), _sealed(Head(stale.position + 1, b""))]
            what = f"an append after position {stale.position} of another history"
            _raises(partial(log.append, late, after=stale, erase=[1]), ConflictError, f"{what} is refused")
        _same(list(log.read()), events, f"{what} has written and erased nothing")
        _same(log.head(), _head_of(events[-1]), f"{what} leaves the head where it is")


@_every_engine
def check_a_stale_append_of_nothing_is_refused(engine: Engine) -> None:
    """`Raises ConflictError when the head is not after`: also where there is nothing to append, only to make durable."""
    log = engine.open_log("signal")
    born = log.head()
    _append(log, 1)
    for stale in (born, Head(1, b"\x55" * 32), Head(2, b"\x55" * 32)):
        for level in _levels(log):
            with log.writing():
                what = f"append([], after={stale.position}, durability={level!r}) at head 1"
                _raises(partial(log.append, [], after=stale, durability=level), ConflictError, f"{what} is refused")
    _same(engine.open_log("signal").head().position, 1, "the log opens again after refused appends")


@_every_engine
def check_an_append_of_nothing_changes_nothing(engine: Engine) -> None:
    """`No events at all makes what stands as durable as asked.`"""
    log = engine.open_log("signal")
    for _ in range(2):
        for level in _levels(log):
            with log.writing() as head:
                log.append([], after=head, durability=level)
            _same(log.head(), head, f"an append of nothing at level {level!r} leaves the head where it is")
        _append(log, 1)
    _same(len(list(log.read())), 2, "an append of nothing appends nothing")


@_every_engine
def check_every_level_of_durability_is_honoured_or_refused(engine: Engine) -> None:
    """`as durably as asked; None is the log's own level`: a log that survives nothing refuses to promise anything."""
    log = engine.open_log("signal")
    kept = []
    for level in _levels(log):
        with log.writing() as head:
            kept.append(_sealed(head))
            log.append(kept[-1:], after=head, durability=level)
    for level in _DURABLE if log.durability == "memory" else ():
        with log.writing() as head:
            _raises(
                partial(log.append, [_sealed(head)], after=head, durability=level),
                ConfigError,
                f"a log of durability 'memory' does not promise {level!r}",
            )
    _same(list(log.read()), kept, "what was promised is there, what was refused is not")


@_every_engine
def check_what_was_appended_outlasts_the_handle(engine: Engine) -> None:
    """`Returns only once the fault that durability names would leave the events readable`: closing is the mildest of faults."""
    log = engine.open_log("signal")
    if log.durability == "memory":
        return  # it names no fault, closing included
    events: list[Event] = []
    for level in _levels(log):
        with log.writing() as head:
            events.append(_sealed(head))
            log.append(events[-1:], after=head, durability=level)
        log.close()
        log = engine.open_log("signal")
        _same(list(log.read()), events, f"what was appended at level {level!r} is there when the log is opened again")
        _same(log.head(), _head_of(events[-1]), f"so is the head, at level {level!r}")


@_every_engine
def check_erasing_leaves_a_digest_that_the_checksum_proves(engine: Engine) -> None:
    """`erase names positions whose data is erased in the same commit`: the data goes, what proves it was there stays."""
    log = engine.open_log("signal")
    births = log.get([0])
    written = [*_append(log, 2), *_append(log, 1, data=b"blob", meta='{"codec":"none"}'), *_append(log, 1, op="remove", data=None)]
    with log.writing() as head:
        redact = _sealed(head, op="redact", key="[]", data='{"positions":[1,3],"reason":"asked"}')
        log.append([redact], after=head, erase=[1, 3, 4])
    _same(
        log.held([1, 2, 3, 4, 5, 99]),
        [2],
        "`Those of positions whose data stands`: not what was erased, removed, the log's own, or never was",
    )
    wanted = [erased(written[0]), written[1], erased(written[2]), written[3], redact]
    _same(list(log.read()), wanted, "data and salt of positions 1 and 3 are gone, digests stand there, all else is as it was")
    previous = _head_of(births[0])
    for event in log.read():
        check(previous, event, "signal")
        previous = _head_of(event)
    with log.writing() as head:
        log.append([_sealed(head)], after=head, erase=[1])
    _same(log.get([1]), [erased(written[0])], "erasing a second time changes nothing")
    _same(engine.open_log("signal").get([1, 3]), [erased(written[0]), erased(written[2])], "another handle finds them erased too")
    with log.writing() as head:
        log.append([], after=head, erase=[2])
    _same(log.get([2]), [erased(written[1])], "`also without events`: a redaction that was not finished can be finished")
    _same(log.head(), head, "and the head stays where it was")
    _same(log.forget_erased(), True, "with nobody reading, nothing of it is left in any file")
    _same(log.copies(), [], "and nowhere else in a new store")


# ---- writing


@_every_engine
def check_writing_gives_the_head_and_lets_go(engine: Engine) -> None:
    """`Take the right to append, give the head, release on exit`, also when the block raises."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    for writer in (log, other, log):
        known = writer.head()
        with writer.writing() as head:
            _same(head, known, "writing() gives the head that is known")
            writer.append([_sealed(head)], after=head)
        with contextlib.suppress(ZeroDivisionError), writer.writing():
            raise ZeroDivisionError
    _same(len(list(log.read())), 3, "three handles in turn wrote three events")


@_every_engine
def check_of_two_writers_one_is_first(engine: Engine) -> None:
    """`Raises ConflictError when the head is not after`: however many try, each position is given once, and none is lost."""
    logs = [engine.open_log("signal"), engine.open_log("signal")]
    appended: list[Event] = []

    def write(log: EventLog, data: str) -> None:
        for _ in range(10):
            appended.extend(_append(log, 1, data=data))

    threads = [_Thread(partial(write, logs[index % 2], str(index))) for index in range(4)]
    for thread in threads:
        thread.start()
    _same([repr(thread.failure()) for thread in threads], ["None"] * 4, "no thread that writes fails")
    _same(list(logs[0].read()), sorted(appended, key=lambda event: event.position), "40 appends by 4 threads, each once")
    _same(sorted(event.position for event in appended), list(range(1, 41)), "their positions have no gap")


@_local_engines
def check_writing_locks_out_another_thread(engine: Engine) -> None:
    """`Local engines lock out every other writer of this log`: the next one enters when the first has left, and sees its event."""
    log = engine.open_log("signal")
    for other in (log, engine.open_log("signal")):
        entered = threading.Event()
        found: list[Head] = []
        thread = _Thread(partial(_enter, other, entered, found))
        with log.writing() as head:
            thread.start()
            _require(not entered.wait(0.1), "no other thread is inside writing() while one is")
            event = _sealed(head)
            log.append([event], after=head)
        _same(thread.failure(), None, "the thread that waited gets in")
        _same(found, [_head_of(event)], "the thread that waited is given the head as the first one left it")


@_local_engines
def check_waiting_for_the_lock_ends(engine: Engine) -> None:
    """`Raises UnavailableError when the lock is not had in time`; and once it is free, it can be had again."""
    log = engine.open_log("signal")
    for other in (log, engine.open_log("signal")):
        thread = _Thread(partial(_enter, other, threading.Event(), []))
        with log.writing():
            thread.start()
            _same(type(thread.failure()), UnavailableError, "a lock that is not had in time is an UnavailableError")
        _append(other, 1)


# ---- seals


@_every_engine
def check_a_log_goes_on_behind_a_seal(engine: Engine) -> None:
    """`Appended, such an event is the last of its file: the log goes on in another one`, and nobody notices."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    every = [*log.get([0])]
    for writer in (log, other, log):
        every += _append(writer, 5)
        every += _seal(writer)
        for reader in (log, other):
            _same([*reader.get([0]), *reader.read()], every, "what was appended before a seal is read as before, and the seal after it")
            _same(reader.head(), _head_of(every[-1]), "the head of a log that was sealed is the seal")
    every += _append(other, 3)
    for reader in (log, other, engine.open_log("signal")):
        _same([*reader.get([0]), *reader.read()], every, "so is what was appended behind it")
        _same(_events_of(reader.linked(range(30))), every, "linked() gives all of them, in whatever file they stand")
        for position in (1, 6, 7, 13, len(every) - 1):
            _same(reader.linked([position]), [Linked(every[position - 1].checksum, every[position])], f"linked({position}) over seals")


@_every_engine
def check_a_history_leads_over_seals(engine: Engine) -> None:
    """`one key's history, newest first`, in whatever files its events stand."""
    log = engine.open_log("signal")
    histories = _interleaved(log, rounds=3)
    for _ in range(2):
        histories["[]"] += _seal(log)
        for key in ('["a"]', '["b",1]'):
            with log.writing() as head:
                event = _sealed(head, prev=histories[key][-1].position, key=key)
                log.append([event], after=head)
            histories[key].append(event)
    for history in histories.values():
        history.reverse()
        for limit in (1, 2, 3, 100):
            found = _events_of(log.chain(history[0].position, limit=limit))
            _same(found, history[:limit], f"chain() with limit {limit} over two seals")


@_every_engine
def check_what_a_seal_says_follows_from_the_events(engine: Engine) -> None:
    """`What a seal event must say that is appended next`: first, last, count, and what is carried over it."""
    log = engine.open_log("signal")
    births = log.linked([0])
    _append(log, 3)
    _, _, last = log.linked([1, 2, 3])
    digest = CarriedDigest()
    for each in (*births, last):
        digest.add(each.event.position, each.previous or b"", each.event.checksum)
    with log.writing():
        _same(log.draft_seal(), digest.seal(0, 4), "over the first seal the birth row is carried, and the latest event of each key")
        _same(log.draft_seal(), digest.seal(0, 4), "asking twice changes nothing")
    _same(log.head().position, 3, "drafting appends nothing")
    (first,) = _seal(log)
    _append(log, 1, op="remove", data=None)
    (removal,) = log.linked([5])
    digest = CarriedDigest()
    for each in (*births, *log.linked([first.position]), removal):
        digest.add(each.event.position, each.previous or b"", each.event.checksum)
    with log.writing():
        _same(log.draft_seal(), digest.seal(5, 6), "over the next one the first seal is carried, and removals are")


@_every_engine
def check_a_seal_that_was_prepared_says_what_follows_from_the_events(engine: Engine) -> None:
    """`What draft_seal() says is the same without it`, whatever was appended since. `Changes nothing that can be asked.`"""
    log = engine.open_log("signal")
    log.prepare_seal()
    _append(log, 2)
    log.prepare_seal()
    _same(log.head().position, 2, "preparing appends nothing")
    _append(log, 1, op="remove", data=None)
    _append(log, 1, key='["b"]')
    digest = CarriedDigest()
    for each in log.linked([0, 3, 4]):
        digest.add(each.event.position, each.previous or b"", each.event.checksum)
    with log.writing():
        _same(log.draft_seal(), digest.seal(0, 5), "what was appended since is carried, and what it replaced is not")
    (first,) = _seal(log)
    log.prepare_seal()
    _seal(log)
    log.prepare_seal()
    _append(log, 1)
    digest = CarriedDigest()
    for each in log.linked([0, 4, first.position, 6, 7]):
        digest.add(each.event.position, each.previous or b"", each.event.checksum)
    with log.writing():
        _same(log.draft_seal(), digest.seal(7, 8), "what was prepared before a seal has nothing to say of the next one")


@_every_engine
def check_what_is_carried_can_be_folded_and_proven(engine: Engine) -> None:
    """`What is carried over the seal at start ... by position, the seal last`; `carried(0) is the birth row alone.`"""
    log = engine.open_log("signal")
    _interleaved(log, rounds=4)
    seals = [*_seal(log)]
    _append(log, 2)
    seals += _seal(log)
    _append(log, 1)
    _same(list(log.carried(0)), log.linked([0]), "carried(0) is the birth row")
    every = [*log.get([0]), *log.read()]
    for position in [sealing.position for sealing in seals]:
        before = every[:position]
        latest = {event.key: event.position for event in before}
        wanted = [event for event in before if event.key == "[]" or latest[event.key] == event.position] + [every[position]]
        _same(_events_of(list(log.carried(position))), wanted, "carried() gives the log's own events, the latest of each key, the seal")
        _same(list(prove_carried(log.carried(position), position, "signal")), wanted, "and they prove themselves")
        _same(log.start(position), position, "a log can be folded from its seal")
        _require(log.start(position - 1) < position, "but not from one that comes later")
    _raises(lambda: list(log.carried(3)), CompactedError, "nothing is carried over an event that is no seal")
    _same((log.floor(), log.start(1)), (0, 0), "of a log that is there whole everything is at hand")


@_every_engine
def check_the_extent_begins_behind_the_last_seal(engine: Engine) -> None:
    """`The part of the log that is not sealed yet: how it began`."""
    log = engine.open_log("signal")
    _same((log.extent().first, log.extent().began_us), (0, None), "a new log has no event yet")
    events = _append(log, 2)
    _same((log.extent().first, log.extent().began_us), (0, events[0].recorded_us), "it begins with its first event")
    _same(log.has_grown(1), log.extent().bytes > 0, "what is appended takes bytes, where there is a disk")
    (seal,) = _seal(log)
    with log.writing():
        _same((log.extent().first, log.extent().began_us), (seal.position + 1, None), "behind a seal it begins anew")
    _same(log.has_grown(1), False, "what is carried was not appended")
    events = _append(log, 2)
    _same((log.extent().first, log.extent().began_us), (seal.position + 1, events[0].recorded_us), "with the first event behind it")


# ---- the end


@_every_engine
def check_a_healthy_log_has_no_faults(engine: Engine) -> None:
    """`What the engine itself finds wrong with its storage. Changes nothing.`"""
    log = engine.open_log("signal")
    for count in (0, 5):
        events = [*log.read(), *_append(log, count)]
        _same(list(log.faults()), [], "a healthy log has no faults")
        _same(list(log.read()), events, "looking for faults changes nothing")
        _append(log, 1)


@_every_engine
def check_a_distrusted_log_writes_nothing_more(engine: Engine) -> None:
    """`Damage was found above: keep the evidence, write nothing more, vouch for nothing at close.`"""
    log = engine.open_log("signal")
    events = _append(log, 2)
    log.distrust(ChecksumError("signal", 1, b"expected", b"found"))
    if log.durability == "memory":
        return  # there is nothing that could be kept, or written over
    _raises(lambda: log.writing().__enter__(), EngineError, "a distrusted log gives no right to append")
    _same(list(log.read()), events, "a distrusted log can be read")
    log.close()
    _same(list(engine.open_log("signal").read()), events, "what was appended before is there when the log is opened again")


@_every_engine
def check_a_closed_log_says_so(engine: Engine) -> None:
    """`Any method may raise ClosedError after close()`: those that would read or write do."""
    log = engine.open_log("signal")
    _append(log, 2)
    log.close()
    calls: list[tuple[str, Callable[[], object]]] = [
        ("head()", log.head),
        ("moved()", lambda: log.moved(0)),
        ("read()", lambda: list(log.read())),
        ("get()", lambda: log.get([1])),
        ("chain()", lambda: log.chain(1, limit=1)),
        ("writing()", lambda: log.writing().__enter__()),
    ]
    for name, call in calls:
        _raises(call, ClosedError, f"{name} after close() is a ClosedError")


@_every_engine
def check_closing_twice_does_nothing(engine: Engine) -> None:
    """`Release everything; a second call does nothing`: neither to the handle nor to another one."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    if log is other:
        log.close()
        log.close()
        return
    with log.writing() as head:
        log.append([_sealed(head)], after=head)
    log.close()
    log.close()
    _append(other, 1)
    log.close()
    _same([event.position for event in other.read()], [1, 2], "another handle reads and writes on after the first was closed")
    other.close()
    third = engine.open_log("signal")
    _append(third, 1)
    _same([event.position for event in third.read()], [1, 2, 3], "a log that every handle closed opens again")


@_every_engine
def check_a_forked_child_opens_anew(engine: Engine) -> None:
    """`In a forked child: let go of what belongs to the parent without touching it; the next call opens anew.`"""
    log = engine.open_log("signal")
    first = _append(log, 1)

    def child() -> None:
        log.abandon()
        log.abandon()
        _same(list(log.read()), first, "a forked child reads what was there")
        _append(log, 1, data='"child"')
        log.close()

    _in_child(child)
    _append(log, 1, data='"parent"')
    values = [event.data for event in log.read()]
    shared = ['"value"', '"child"', '"parent"']
    _same(values, shared if log.durability != "memory" else shared[::2], "parent and child have both written")


@_local_engines
def check_a_forked_child_leaves_the_parents_lock_alone(engine: Engine) -> None:
    """`without touching it`: the parent's lock is neither kept by the child nor released by it."""
    log, other = engine.open_log("signal"), engine.open_log("signal")
    with log.writing() as head:
        _in_child(log.abandon)
        thread = _Thread(partial(_append, other, 1))
        thread.start()
        _same(type(thread.failure()), UnavailableError, "a child that abandons the log does not release its parent's lock")
        log.append([_sealed(head)], after=head)
    _append(log, 1)


# ---- sentences


def _fail(sentence: str) -> NoReturn:
    raise AssertionError(sentence)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        _fail(f"This does not hold: {sentence}")


def _same(found: object, wanted: object, sentence: str) -> None:
    if found != wanted:
        _fail(f"This does not hold: {sentence}. Found {_short(found)}, wanted {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 500 else f"{text[:500]}... ({len(text)} characters)"


def _raises(call: Callable[[], object], kind: type[EventStoreError], sentence: str) -> None:
    try:
        given = call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"This does not hold: {sentence}. Raised {type(error).__name__}: {error}, wanted {kind.__name__}") from error
    _fail(f"This does not hold: {sentence}. Nothing was raised, {_short(given)} was given; wanted {kind.__name__}")


# ---- events


def _head_of(event: Event) -> Head:
    return Head(event.position, event.checksum)


def _listed(log: EventLog, after: int, until: int) -> list[bytes]:
    return list(log.checksums(after, until))


def _sealed(
    previous: Head,
    *,
    prev: int = 0,
    op: str = "put",
    key: str = '["a"]',
    data: str | bytes | None = '"value"',
    when_us: int | None = None,
    meta: str | None = None,
) -> Event:
    """The event after `previous`, like those that the store seals."""
    recorded_us = 1_700_000_000_000_000 + previous.position
    salt = None if data is None else previous.position.to_bytes(16, "big")
    return seal(previous, prev=prev, recorded_us=recorded_us, when_us=when_us, op=op, key=key, meta=meta, data=data, salt=salt)


def _birth(engine: Engine, name: str) -> Event:
    """A birth row from elsewhere: another time, another rule."""
    data = {"format": FORMAT, "store_id": engine.store_id, "domain": name, "created_us": 7, "write": "first"}
    return seal_system(GENESIS, prev=0, recorded_us=7, op="open", data=data, salt=b"s" * 16)


def _events_of(linked: Sequence[Linked]) -> list[Event]:
    return [each.event for each in linked]


def _linked(log: EventLog, events: Sequence[Event]) -> list[Linked]:
    """`events` as linked() should give them, in their order."""
    checksums = {event.position + 1: event.checksum for event in [*log.get([0]), *log.read()]}
    return [Linked(checksums[event.position], event) for event in events]


def _event_like(event: Event, **fields: Any) -> Event:
    """`event` with some fields that no seal() would give it."""
    return Event(**{name: getattr(event, name) for name in Event.__struct_fields__} | fields)


def _write(log: EventLog, events: Sequence[Event]) -> None:
    with log.writing() as head:
        log.append(events, after=head)


def _append(log: EventLog, count: int, **fields: Any) -> list[Event]:
    """`count` events of one key, each naming the one before it, in one go; tried again as long as others are first."""
    while True:
        log.head()  # a remote engine's writing() gives the head that it last heard of
        with contextlib.suppress(ConflictError), log.writing() as head:
            events: list[Event] = []
            for _ in range(count):
                previous = _head_of(events[-1]) if events else head
                events.append(_sealed(previous, prev=previous.position, **fields))
            if events:
                log.append(events, after=head)
            return events


def _seal(log: EventLog) -> list[Event]:
    """Append a seal; gives it."""
    system = max((event.position for event in log.read() if event.key == "[]"), default=0)
    with log.writing() as head:
        said = msgspec.json.encode(log.draft_seal()).decode()
        event = _sealed(head, prev=system, op="seal", key="[]", data=said)
        log.append([event], after=head)
    return [event]


def _enter(log: EventLog, entered: threading.Event, found: list[Head]) -> None:
    with log.writing() as head:
        entered.set()
        found.append(head)


def _interleaved(log: EventLog, *, rounds: int) -> dict[str, list[Event]]:
    """Three histories side by side, the log's own among them: each with its events, oldest first."""
    histories: dict[str, list[Event]] = {'["a"]': [], '["b",1]': [], "[]": []}
    for _ in range(rounds):
        for key, history in histories.items():
            with log.writing() as head:
                prev = history[-1].position if history else 0
                event = _sealed(head, prev=prev, key=key, op="rules" if key == "[]" else "put", data="{}")
                log.append([event], after=head)
            history.append(event)
    return histories


def _levels(log: EventLog) -> Iterator[Durability | None]:
    """Every level that an append to this log may name."""
    yield None
    if log.durability == "memory":
        yield "memory"
    else:
        yield from _DURABLE


class _Thread(threading.Thread):
    """A thread whose failure its parent is told."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Act, and keep what that raises."""
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - whoever started the thread judges it
            self._failure = error

    def failure(self) -> BaseException | None:
        """Wait for the end; what was raised, if anything."""
        self.join()
        return self._failure


def _in_child(act: Callable[[], None]) -> None:
    """Run `act` in a forked child; what it raises there is raised here."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - a child must never return into its parent's code
            os.write(target, f"In a forked child: {type(error).__name__}: {error}"[:4_000].encode())
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as reading:
        sentence = reading.read().decode()
    os.waitpid(child, 0)
    if sentence:
        _fail(sentence)
