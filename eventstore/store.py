"""Store, the front door: domains over one engine."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from eventstore import metrics
from eventstore.anchors import Anchor, AnchoredHead, anchored_head, judge, make_anchor, require_judgeable, unnamed
from eventstore.archive import ArchiveReport, archive_files, archive_folder, chosen_files, plan_archive, try_to_finish
from eventstore.archive import Progress as ArchiveProgress
from eventstore.bundles import Bundle, chosen_events, make_bundle
from eventstore.carried import Beginning
from eventstore.clock import Clock
from eventstore.codec import check, read_birth
from eventstore.coding import Cipher, Coding, require_subject
from eventstore.compaction import SealPolicy, SealReport
from eventstore.domain import DomainStore
from eventstore.erasure import Shredding, roll_forward
from eventstore.errors import ClosedError, ConfigError, ContractError, EventStoreError, NotFoundError, ReadOnlyError
from eventstore.failstop import FailStop, OnHalt
from eventstore.gone import keep_adopted, keep_gone
from eventstore.group import GroupCommit
from eventstore.intents import INTENTS, OpenIntent, UncertainIntent, effect_text, uncertain_intents
from eventstore.live import Live
from eventstore.log import PAGE, Engine, EventLog
from eventstore.meta import EventMeta, meta_text
from eventstore.metrics import Meter, OnCommit
from eventstore.model import Domain, Durability, Event, Head, Key
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import ValueCache
from eventstore.retention import Retention, RetentionPlan, Way, apply_retention, plan_retention
from eventstore.values import MAX_VALUE_BYTES
from eventstore.verify import Progress, Report, require_whole, verify_store

if TYPE_CHECKING:
    from eventstore.backup import BackupReport

CACHE_BYTES = 256 * 2**20
_ONE_WAY = "say where the files go, by to=, or that they are to be deleted for good, by delete=True: one of the two"
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Store:
    """The front door: domains over one engine. Made by eventstore.open(); a context manager that closes; safe between threads."""

    def __init__(
        self,
        engine: Engine,
        location: str,
        *,
        actor: str | None = None,
        accept_loss: bool = False,
        cache_bytes: int = CACHE_BYTES,
        max_value_bytes: int = MAX_VALUE_BYTES,
        on_halt: OnHalt | None = None,
        on_commit: OnCommit | None = None,
        cipher: Cipher | None = None,
        seal_policy: SealPolicy | None = None,
    ) -> None:
        self.location = location
        self.actor = actor
        self.max_value_bytes = max_value_bytes
        self.clock = Clock()
        self._engine = engine
        self._accept_loss = accept_loss
        self._cache = ValueCache(cache_bytes)
        self._coding = Coding(engine.store_id, max_value_bytes=max_value_bytes, cipher=cipher)
        self._groups: dict[str, GroupCommit] = {}
        self._failstop = FailStop(on_halt)
        self._on_commit = on_commit
        self._seal_policy = seal_policy or SealPolicy()
        self._opening = threading.Lock()
        self._closed = False
        _open_stores.add(self)

    @property
    def store_id(self) -> str:
        """32 hexadecimal digits that no other store has."""
        return self._engine.store_id

    @property
    def created_us(self) -> int:
        """When the store was made, in microseconds."""
        return self._engine.created_us

    @property
    def read_only(self) -> bool:
        """Whether writes are refused."""
        return self._engine.read_only

    def domains(self) -> list[str]:
        """The names of all domains, sorted."""
        self._require_open()
        return self._engine.domains()

    def domain(self, domain: str | Domain) -> DomainStore:
        """Open a domain, made if there is none: by name under whatever rule it has, or by a Domain, whose rule must be its own.

        Raises InvalidKeyError for a name that is none, NotFoundError if it is missing and the store is read-only,
        ContractError for another rule, CorruptionError for damage.
        """
        declared = isinstance(domain, Domain)
        wanted = domain if isinstance(domain, Domain) else Domain(domain)
        with self._opening:
            self._require_open()
            group = self._groups.get(wanted.name)
            if group is None:
                self._require_running(wanted.name)
                rule = wanted.write if declared else None
                log = self._engine.open_log(wanted.name, rule, accept_loss=self._accept_loss)
                group, _ = self._group(log, accept_loss=self._accept_loss)
        rule = group.live.log.rule
        if not declared:
            wanted = Domain(wanted.name, rule)
        elif rule != wanted.write:
            raise ContractError(f"{wanted.name}: made with the write rule {rule!r}, opened with {wanted.write!r}")
        return DomainStore(wanted, group, store=self, actor=self.actor, max_value_bytes=self.max_value_bytes)

    def intent(
        self, event_id: str, effect: Any, *, resume: bool = False, durability: Durability | None = None, **meta: Unpack[EventMeta]
    ) -> OpenIntent:
        """Do something outside the store, once: `with store.intent("order-17", order) as intent:`, and act in the block.

        `effect` (any JSON) is recorded under `event_id` before the block runs, as durably as the store is or `durability`
        says. The block then says intent.done(result) or intent.fail(reason); leaving it without a word is done(None). An
        exception settles nothing: it is noted and raised, and the effect stays uncertain, as it does after a crash.
        Of several processes that enter one id at one moment, one runs its block.

        Raised on entering, instead of running the block: SettledError, with the recorded result, if it is done or failed;
        UncertainError if it was begun before, or is under way elsewhere; DuplicateEventError if the id names another effect.
        `resume=True` runs the block of an uncertain one as well, with intent.uncertain set: for callers who ask the
        other side by this id before they act, or whose other side knows an id that it has seen. Nothing tells a crashed
        process from a slow one here: resume when no other process is at it.

        Raises, with nothing recorded, ConfigError, InvalidKeyError (an event_id is a key here), InvalidValueError,
        ReadOnlyError; on entering EngineError: the block did not run, and the effect may be listed as uncertain all the same.
        """
        text = effect_text(event_id, effect, max_bytes=self.max_value_bytes)
        if self.read_only:
            raise ReadOnlyError(f"{self.location} is open read-only: what cannot be recorded must not be done")
        domain = self.domain(INTENTS)
        return OpenIntent(domain, event_id, text, resume=resume, durability=durability, max_bytes=self.max_value_bytes, meta=meta)

    def uncertain(self) -> list[UncertainIntent]:
        """The effects of Store.intent() that were begun and not settled, the one begun first at the head of the list.

        Those under way at this moment, in any process, are among them. Settle each by entering it with `resume=True`.
        Reads every value of the domain `intents`; raises ContractError if it holds anything else, CorruptionError.
        """
        if INTENTS.name not in self.domains():
            return []
        return uncertain_intents(self.domain(INTENTS))

    def _group(self, log: EventLog, *, accept_loss: bool = False) -> tuple[GroupCommit, Head | None]:
        """What works on a log, and the event of the loss of event ids, if there was one to accept."""
        try:
            pointers = PointerFolder(self._engine.pointers(log.domain), log, writable=not self.read_only)
            live = Live(log, pointers, self._cache, lenient=self.read_only, coding=self._coding)
            self.clock.observe(live.states.recorded_us)
            meter = Meter(log.domain, self._on_commit)
            group = GroupCommit(live, self.clock, self._failstop, meter, self._seal_policy)
            if not self.read_only:
                roll_forward(group)
        except BaseException:
            log.close()
            raise
        self._groups[log.domain] = group
        if self.read_only:
            return group, None
        kept, accepted = keep_gone(group, accept_loss=accept_loss)
        if kept:
            try_to_finish(group, self.store_id)
        return group, accepted

    def seal(self, domain: str) -> SealReport:
        """End the live file of a domain by a `seal` event, and go on in a new one that begins with what every key is now.

        That is what compaction is here: nothing is deleted, and everything can be read as before. But a sealed file never changes
        again, and can be moved away; then what the domain was before it takes that file, and the live one stays small. The live file
        is read while others write on; they wait only while what every key is gets copied. Nothing appended since the last seal:
        nothing is done, and the report says so. Raises NotFoundError, ReadOnlyError, EngineError.
        """
        if domain not in self.domains():
            raise NotFoundError(f"no domain {domain!r} in {self.location}")
        return self.domain(domain).group.seal()

    def archive(
        self,
        domain: str | None = None,
        *,
        before: datetime | int | None = None,
        to: str | os.PathLike[str],
        dry_run: bool = False,
        progress: ArchiveProgress | None = None,
    ) -> list[ArchiveReport]:
        """Move sealed files, of one domain or of all, to the folder `to`; what was there is read again by open(archives=[to]).

        Those whose events were all recorded before a time, or, of one domain, stand before a position; None: all that are sealed
        (see seal()). Each is copied, the copy proven and hashed, and an `archive` event recorded; only then the original goes.
        Writers wait for the event alone, and who has a file open reads on. What every key is stays; what was before is a CompactedError
        unless the archive is attached. `progress` is called with domain, files done, files to do.

        A copy that stands there already, as whoever made it was killed, or was a copy of this store, is taken if it proves to be one;
        nothing is overwritten. `kept` in the report names files, and such copies elsewhere, that should have gone, and why.

        Raises NotFoundError, ConfigError for a folder inside a store or a backup, CorruptionError for a file that is not whole,
        AccessError, DiskFullError, EngineError. What was moved before that stays moved.
        """
        if isinstance(before, int) and domain is None:
            raise ConfigError("positions are a domain's own: name the domain, or give a time")
        groups = self._moved(domain)
        folder = archive_folder(to)
        if dry_run:
            return [plan_archive(group, before, folder, self.store_id) for group in groups]
        self._require_movable()
        return [archive_files(group, lambda log: chosen_files(log, before), folder, self.store_id, progress) for group in groups]

    def plan_retention(
        self,
        policy: Retention,
        domain: str | None = None,
        *,
        to: str | os.PathLike[str] | None = None,
        delete: bool = False,
        take_over: bool = False,
    ) -> list[RetentionPlan]:
        """What retain() would do now if it were told the same, domain by domain; changes nothing.

        With neither `to` nor `delete` it names the files that need not be kept, wherever they are, and not what becomes of them. Files are
        not proven here: one that is not whole does not go, and retain() says so. Raises NotFoundError, ConfigError, CorruptionError.
        """
        _require_policy(policy)
        way = _way(to, delete, take_over)
        return [plan_retention(group, policy, self.store_id, way) for group in self._moved(domain)]

    def retain(
        self,
        policy: Retention,
        domain: str | None = None,
        *,
        to: str | os.PathLike[str] | None = None,
        delete: bool = False,
        take_over: bool = False,
        progress: ArchiveProgress | None = None,
    ) -> list[ArchiveReport]:
        """Keep of one domain, or of all, what the policy says: move older sealed files to the folder `to`, or delete them for good.

        A live file that begins with what need not be kept is sealed first. With `delete`, files that were archived earlier go, too,
        from where they were put and from every archive that is attached. Only the store that put them there may do that, and no copy
        of it, which has another path or is another folder; `take_over` lets this one, from now on: say so of a store that was moved or
        restored, and if no other counts on its archives. What could not go is in the report's `kept`, with the reason; `removed` are files
        that an earlier call was to remove. plan_retention() with the same arguments says all of it before.
        What every key is survives always: only the past goes, and an `archive` event says which. What was altered is evidence, and does not
        go: of the store's own files it is a CorruptionError, of copies in archives it is in `kept`. Raises as archive() does.
        """
        _require_policy(policy)
        if to is None and not delete:
            raise ConfigError(_ONE_WAY)
        way = _way(to, delete, take_over)
        self._require_movable()
        return [apply_retention(group, policy, self.store_id, way, progress) for group in self._moved(domain)]

    def _moved(self, domain: str | None) -> list[GroupCommit]:
        existing = self.domains()
        if domain is not None and domain not in existing:
            raise NotFoundError(f"no domain {domain!r} in {self.location}")
        return [self.domain(name).group for name in existing if domain in (None, name)]

    def _require_movable(self) -> None:
        if self.read_only:
            raise ReadOnlyError(f"{self.location} is open read-only: open it without read_only to move or delete its files")

    def accept(self, domain: str) -> Head | None:
        """Record as an event what a domain has lost of its tail, for which it could not be opened, or of its event ids.

        Gives the head that the log has by then, None if nothing was lost. Raises NotFoundError, EngineError.
        """
        with self._opening:
            self._require_open()
            if domain not in self.domains():
                raise NotFoundError(f"no domain {domain!r} in {self.location}")
            self._failstop.require_running()
            if domain in self._groups:  # nothing of its tail is lost then
                return keep_gone(self._groups[domain], accept_loss=True)[1]
            group, accepted = self._group(self._engine.open_log(domain, accept_loss=True), accept_loss=True)
            return accepted or group.live.log.accepted

    def adopt(
        self,
        domain: str,
        events: Iterable[Event],
        *,
        beginning: Beginning | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Head:
        """Make a domain out of another log's events, unchanged: positions, times and checksums stay. The first is the birth row.

        Of a log whose first files are not at hand, `beginning` is what is left of them, the birth row first, and `events` are those
        behind its floor. Every link is checked before it is written; all of them become a domain, or nothing does. It is then opened
        as any other: files that its `archive` events say are elsewhere stay there, and DomainView.floor says up to where. Raises
        ConfigError if the domain exists, CorruptionError.
        """
        with self._opening:
            self._require_open()
            self._failstop.require_running()
            stream = _events(events)
            first, beginning = _first_of(stream, beginning)
            birth = read_birth(first, domain)
            assert first is not None  # read_birth() refuses None
            if birth.store_id != self.store_id or birth.domain != domain:
                raise ConfigError(
                    f"{domain}: these are events of {birth.domain!r} of store {birth.store_id}, not of {domain!r} of this store,"
                    f" {self.store_id}"
                )
            if domain in self.domains():
                raise ConfigError(f"{domain} exists already; events are adopted into a new domain only")
            with self._engine.adopting(domain, first, beginning) as log:
                if beginning is not None:
                    keep_adopted(log, beginning)
                _append_all(log, stream, progress)
                require_whole(log, self._engine)
            group, _ = self._group(self._engine.open_log(domain))
            return group.live.states.head

    def shred(self, subject: str, *, reason: str, actor: str | None = None, take_over: bool = False) -> Shredding:
        """Destroy the key of a subject: what was encrypted with it can be read by nobody any more, not from a backup either.

        That is durable first. Then every value of it in this store is redacted, so that each domain's log says who did it and
        why. A write that was being committed when the key went is redacted with the others; one that still waited for that comes
        after, and is encrypted with a new key, as whatever is written later. Whoever was killed in between calls again: nothing is
        done twice. What else holds the key file (its own backups) holds the key. `take_over`: see DomainStore.redact. Raises
        NotFoundError for a subject that never had a key, ConfigError without keys, EngineError.
        """
        require_subject(subject)
        cipher = self._coding.cipher
        if cipher is None:
            raise ConfigError(f"{self.location}: opened without its key file, nothing can be shredded; open it with keys=FILE")
        if self.read_only:
            raise ReadOnlyError(f"{self.location} is open read-only: what is destroyed must be recorded")
        who = actor if actor is not None else self.actor
        meta_text({"actor": who, "reason": reason}, None)  # whatever is wrong with them is said before anything is destroyed
        if not reason:
            raise ConfigError("a key is destroyed for a reason: a string that is not empty")
        for name in self.domains():
            self.domain(name)  # what cannot be opened is told before anything is destroyed
        keys = cipher.shred(subject, reason=reason, actor=who)
        found = [self.domain(name).redact_encrypted(keys, reason=reason, actor=actor, take_over=take_over) for name in self.domains()]
        erased = [done for done in found if done is not None]
        return Shredding(subject, keys, erased)

    def verify(
        self,
        domain: str | None = None,
        *,
        anchor: Anchor | None = None,
        progress: Progress | None = None,
        processes: int | None = None,
    ) -> Report:
        """Check every byte of every domain, or of one, against the chain; repairs nothing.

        With an `anchor` that was kept elsewhere, each domain is held against it too: Report.anchored, which also says how much
        of a domain it does not cover. Its signature is not looked at: adapters.signing.require_signature() does that. Where no
        anchor reaches, an end that was cut off together with its witness cannot be noticed.

        `progress` is called with domain, position reached, last position. `processes`: among how many processes a long log
        is shared, this one included; None: one a core, where that pays. The report does not depend on it. Raises
        NotFoundError for an unknown domain, or an anchor of another store, ConfigError for a number of processes that is none,
        CompactedError, before anything is read, for an anchor that ends before the part of the log that is at hand.
        """
        if processes is not None and not _is_number(processes):
            raise ConfigError(f"processes is a whole number from 1 on, not {processes!r}")
        existing = self.domains()
        anchored = self._anchored(anchor)
        if domain is not None and domain not in existing and domain not in anchored:
            raise NotFoundError(f"no domain {domain!r} in {self.location}")
        if domain is not None and anchor is not None and domain not in anchored:
            raise NotFoundError(f"the anchor says nothing of domain {domain!r}; it names {', '.join(anchored) or 'none'}")
        names = [name for name in existing if domain in (None, name)]
        wanted = [name for name in anchored if domain in (None, name)]
        for name in wanted:
            if anchor is not None and name in existing:
                require_judgeable(self._engine, anchor, name)
        reports = verify_store(self._engine, names, progress=progress, processes=processes, max_value_bytes=self.max_value_bytes)
        if anchor is None:
            return Report(self.location, reports)
        found = {report.domain: report.findings for report in reports}
        judged = [judge(self._engine, anchor, name, found.get(name, ()), exists=name in found, progress=progress) for name in wanted]
        judged += [unnamed(each.domain, each.head.position if each.head else None) for each in reports if each.domain not in wanted]
        return Report(self.location, reports, sorted(judged, key=lambda each: each.domain))

    def _anchored(self, anchor: Anchor | None) -> list[str]:
        """The domains of an anchor that is this store's."""
        if anchor is None:
            return []
        if not isinstance(anchor, Anchor):
            raise ConfigError(f"an anchor is what anchor() gives, not {anchor!r}")
        if anchor.store_id != self.store_id:
            raise NotFoundError(
                f"the anchor is of store {anchor.store_id}, but {self.location} is store {self.store_id}: another store's anchor,"
                " or another store in the place of yours"
            )
        return sorted(anchor.heads)

    def anchor(self, *, roots: bool = True, progress: Progress | None = None) -> Anchor:
        """Where every domain ends now, to be kept where whoever can write the store cannot: see verify(anchor=...).

        It is not signed: adapters.signing.sign() does that. Each head is one that was acknowledged, and its link is checked;
        between domains there is no common moment. At durability `process` a power loss may take events that an anchor names.
        With their roots, a bundle() can be proven by it, and every checksum at hand is read; without, one event a domain. What was
        archived or deleted need not be there: archive events keep what the root takes of it.
        Raises CorruptionError for a damaged end (a read-only store warns, and anchors what is left), CompactedError where none keeps it.
        """
        heads: dict[str, AnchoredHead] = {}
        for name in self.domains():
            domain = self.domain(name)
            event = domain.event(domain.head().position)
            heads[name] = anchored_head(domain.group.live.log, Head(event.position, event.checksum), root=roots, progress=progress)
        return make_anchor(self.store_id, heads)

    def bundle(
        self,
        domain: str,
        *,
        key: Key | None = None,
        positions: Iterable[int] | None = None,
        correlation_id: str | None = None,
        after: int | None = None,
        until: int | None = None,
        since: Anchor | None = None,
        progress: Progress | None = None,
    ) -> Bundle:
        """Some events of a domain for somebody who has neither the store nor this library: with proof, in one line of JSON.

        Chosen by `key`, `positions`, `correlation_id`, or after < position <= until. `since`, an older anchor with roots that
        the other side holds: the bundle then shows that the log only grew since. Its own anchor is not signed:
        adapters.signing.sign() does that. Reads every checksum at hand; `progress` as in verify().

        Raises CompactedError for events, or an anchor, before the part of the log that is at hand: attach the archive that it names.
        Raises NotFoundError for an unknown domain, another store's anchor or if no event is chosen, ConfigError for a choice that
        is none, more than 64 MiB or an anchor that proves nothing here, CorruptionError for damage, or a log that is not the
        anchored one continued.
        """
        if domain not in self.domains():
            raise NotFoundError(f"no domain {domain!r} in {self.location}")
        if since is not None:
            self._anchored(since)
        view = self.domain(domain)
        chosen = chosen_events(view, key=key, positions=positions, correlation_id=correlation_id, after=after, until=until)
        # Only now, so that it comes after all of them.
        head = view.event(view.head().position)
        return make_bundle(view.group.live.log, Head(head.position, head.checksum), self.store_id, chosen, since=since, progress=progress)

    def backup(self, to: str | os.PathLike[str], *, progress: Progress | None = None, processes: int | None = None) -> BackupReport:
        """Back up the whole store into the folder `to`: new, empty, or of an earlier backup of this store, which it replaces.

        Others may write meanwhile. Each domain is copied as of one moment after this call, so every write acknowledged before
        it is in; domains are copied one after the other, each as of its own moment. The copy is proven, durable, and replaces
        the one before it at once: whatever happens, `to` holds a whole backup or none. Log files that did not change since
        are not copied again. Not in it: archives, the key file, pointer files (caches), quarantine. `to` opens with
        read_only=True, and never for writing; restore.restore() makes a store of it.

        `progress` is called with what is done, how much, of how much; `processes` as in verify(). Raises ConfigError for a place
        that cannot be, or a store without files; CorruptionError for a damaged store, of which no backup is made;
        UnavailableError if another backup is under way; EngineError. The backup before stays in each of these cases.
        """
        from eventstore.backup import back_up  # it needs what only POSIX has, and a store in memory does not

        self._require_open()
        return back_up(self._engine, self.location, to, progress=progress, processes=processes)

    @property
    def halted(self) -> EventStoreError | None:
        """What stopped the writing, None while all is well."""
        return self._failstop.cause

    def resume(self) -> None:
        """Write again after a halt, once its cause is gone: every log is opened anew, judged as at the first opening, and folded again.

        A forked child of who opened the store under an owner's name is halted: the lease is the parent's, and taken here once that is gone.
        Raises what still stands in the way, such as DiskFullError, TailLostError or OwnedError; the store then stays halted, and readable.
        Any thread may call it, several at once, and also where nothing is halted.
        """
        with self._opening:
            self._require_open()
            self._engine.resume()
            for group in self._groups.values():
                group.live.resume()
            self._failstop.clear()

    def metrics(self) -> str:
        """What the open domains did since the store was opened, and how they are, in Prometheus's text format."""
        with self._opening:
            self._require_open()
            groups = sorted(self._groups.items())
        found = [(group.meter, group.live.gauges()) for _, group in groups]
        return metrics.text(found, halted=self.halted is not None, halts=self._failstop.halts)

    def close(self) -> None:
        """Write pointer files, checkpoint, release every lock; a second call does nothing.

        Every domain is tried even if one fails; the first failure is raised, and closing again tries that one again.
        """
        failure: EventStoreError | None = None
        with self._opening:
            self._closed = True
            try:
                with self._engine.closing():
                    failure = self._close_logs()
            except EventStoreError as error:
                failure = failure or error
            if not self._groups:  # else somebody may still write there, under the owner's name
                self._engine.close()
        if failure is not None:
            raise failure

    def _close_logs(self) -> EventStoreError | None:
        failure: EventStoreError | None = None
        for name, group in list(self._groups.items()):
            try:
                group.live.close()
                del self._groups[name]
            except EventStoreError as error:
                failure = failure or error
        return failure

    def _require_running(self, domain: str) -> None:
        """Raise HaltedError if writing was stopped and `domain` would have to be made."""
        refusal = self._failstop.refusal()
        if refusal is not None and domain not in self._engine.domains():
            raise refusal

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the store {self.location} was closed; open it again")

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's files and locks; the next use opens its own (RELIABILITY.md R9)."""
        self._opening = threading.Lock()
        self.clock.after_fork()
        self._cache.after_fork()
        if self._coding.cipher is not None:
            self._coding.cipher.after_fork()
        self._failstop.after_fork(self._engine.after_fork())
        for group in self._groups.values():
            group.after_fork()
            group.live.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<eventstore.Store {self.location}{' closed' if self._closed else ''}>"


def _way(to: str | os.PathLike[str] | None, delete: bool, take_over: bool) -> Way:
    """How files are to go, as Store.retain() was told. Raises ConfigError."""
    if to is not None and delete:
        raise ConfigError(_ONE_WAY)
    if take_over and not delete:
        raise ConfigError("take_over says that files may be deleted from archives of another store: it goes with delete=True")
    return Way(None if to is None else archive_folder(to), bool(delete), bool(take_over))


def _require_policy(given: object) -> None:
    if not isinstance(given, Retention):
        raise ConfigError(f"the policy is a Retention, such as Retention(keep_events=1_000_000), not {given!r}")


def _is_number(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= 1


def _events(given: object) -> Iterator[Event]:
    if not isinstance(given, Iterable):
        raise ConfigError(f"what is adopted are the events of a log, not {given!r}")
    for event in given:
        if not isinstance(event, Event):
            raise ConfigError(f"what is adopted are the events of a log, not {event!r}")
        yield event


def _first_of(events: Iterator[Event], beginning: object) -> tuple[Event | None, Beginning | None]:
    """The first event of a log that is adopted, which `beginning` still has if there is one."""
    if beginning is None:
        return next(events, None), None
    if not isinstance(beginning, Beginning):
        raise ConfigError(f"what a log begins with whose first files are elsewhere is a Beginning, not {beginning!r}")
    carried = iter(beginning.carried)
    first = list(islice(carried, 1))
    return first[0].event if first else None, Beginning(beginning.floor, chain(first, carried), beginning.ids)


def _append_all(log: EventLog, events: Iterable[Event], progress: Callable[[int], None] | None) -> None:
    head = log.head()
    batch: list[Event] = []
    for event in events:
        check(Head(batch[-1].position, batch[-1].checksum) if batch else head, event, log.domain)
        batch.append(event)
        if len(batch) == PAGE or event.op == "seal":  # which is the last event of its file
            head = _append_page(log, batch)
            batch = []
            if progress is not None:
                progress(head.position)
    if batch:
        _append_page(log, batch)


def _append_page(log: EventLog, batch: list[Event]) -> Head:
    with log.writing() as head:
        log.append(batch, after=head)
    return Head(batch[-1].position, batch[-1].checksum)


def _after_fork() -> None:
    for store in list(_open_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
