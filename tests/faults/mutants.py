"""Mutants of the library: one promise broken in each, in as few lines as it takes, and the test that must notice.

A text that is to be replaced must stand in its file exactly once; test_canaries.py says so if the code has moved on, and the
mutant is mended here. `says` is a part of what the test says when it notices: it must fail for this, not for a slip.
"""

from __future__ import annotations

import msgspec


class Mutant(msgspec.Struct, frozen=True):
    """One fault in the source."""

    name: str
    file: str
    changes: list[tuple[str, str]]
    """Texts and what replaces them."""
    test: str
    """The quickest test that notices, as pytest names it."""
    says: str
    """A regular expression for what it then says."""


POWER_LOSS = "tests/faults/test_power_loss.py::"
LOST = r"were acknowledged|acknowledged, but not there|are missing: the witness"

DURABLE = [
    Mutant(
        "power commits without a sync",
        "eventstore/database.py",
        [('"power": "FULL"', '"power": "NORMAL"')],
        POWER_LOSS + "test_one_writer_of_one_domain[ci-power]",
        LOST,
    ),
    Mutant(
        "the witness vouches for what a call without events did not sync",
        "eventstore/sqlite.py",
        [("if behind:\n                self._file.sync_wal()", "if behind:\n                pass")],
        POWER_LOSS + "test_one_writer_of_one_domain[ci-None]",
        LOST,
    ),
    Mutant(
        "the COMMIT comes with the next call",
        "eventstore/logfile.py",
        [
            (
                'writer.execute("ROLLBACK")\n            self._set_synchronous',
                'writer.execute("COMMIT")\n            self._set_synchronous',
            ),
            ('writer.execute("COMMIT")\n        except', "pass\n        except"),
        ],
        "tests/faults/test_kill.py::test_one_writer_is_killed_fifty_times[0]",
        LOST,
    ),
    Mutant(
        "a folder is never synced",
        "eventstore/files.py",
        [("    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)\n", "    pass\n")],
        POWER_LOSS + "test_a_new_store_is_absent_or_complete[ci-by us]",
        r"states are wrong",
    ),
    Mutant(
        "a file is replaced without a sync",
        "eventstore/files.py",
        [("os.fsync(file.fileno())", "pass")],
        POWER_LOSS + "test_a_new_store_is_absent_or_complete[ci-by us]",
        r"states are wrong",
    ),
    Mutant(
        "a new database is not synced before it has its name",
        "eventstore/database.py",
        [("    os.fsync(descriptor)\n", "")],
        POWER_LOSS + "test_a_new_store_is_absent_or_complete[ci-by us]",
        r"states are wrong",
    ),
    Mutant(
        "a transaction is as durable as the weakest of its calls",
        "eventstore/commit.py",
        [("DURABILITIES[max(", "DURABILITIES[min(")],
        POWER_LOSS + "test_threads_that_share_transactions[ci]",
        LOST,
    ),
    Mutant(
        "a connection whose sync failed is used on",
        "eventstore/logfile.py",
        [("            self.failed = error\n        outcome", "            pass\n        outcome")],
        "tests/faults/test_io_errors.py::test_a_refused_call[ci-sync-5-once]",
        r"the log would be written through a connection whose sync had failed",
    ),
    Mutant(
        "a store whose sync failed is written on",
        "eventstore/failstop.py",
        [("if self.cause is None:\n                self.cause = ", "if self.cause is None:\n                ")],
        "tests/faults/test_machine.py::test_a_limit_on_file_sizes_is_a_full_disk_and_no_death[100-70000-power]",
        r"HaltedError",
    ),
    Mutant(
        "resume() goes on with the connection that failed",
        "eventstore/sqlite.py",
        [
            (
                "            self._require_space()\n            files, file, head_file = ",
                "            self._halted = self._file.failed = None\n            return\n            files, file, head_file = ",
            )
        ],
        POWER_LOSS + "test_resuming_after_a_failed_sync_is_as_good_as_opening_again[ci-20]",
        LOST,
    ),
    Mutant(
        "what a failed sync may have dropped is not written again",
        "eventstore/logfile.py",
        [("at += os.pwrite(descriptor, content, at)", "at += len(content)")],
        POWER_LOSS + "test_resuming_after_a_failed_sync_is_as_good_as_opening_again[ci-20]",
        LOST,
    ),
]

NOTICED = [
    Mutant(
        "no witness is written",
        "eventstore/sqlite.py",
        [
            (
                'else:\n                self._head_file.witness(head, sync=level == "power+")',
                "else:\n                self._head_file.hint(head.position)",
            )
        ],
        "tests/faults/test_damage.py::test_a_lost_tail_is_refused_with_what_is_missing_and_the_evidence_kept[cut_at_a_frame]",
        r"DID NOT RAISE .*TailLostError",
    ),
    Mutant(
        "store.json does not repeat the witness",
        "eventstore/sqlite.py",
        [
            (
                "self._head_file.witness(head)\n            manifest.raise_head(self.store, self.domain, head)",
                "self._head_file.witness(head)",
            )
        ],
        "tests/faults/test_damage.py::test_wal_and_witness_deleted_together_are_missed_by_the_manifest",
        r"DID NOT RAISE .*TailLostError",
    ),
    Mutant(
        "the tail is not judged at opening",
        "eventstore/sqlite.py",
        [("self._file.end()\n        loss = self._judge(found)", "self._file.end()\n        loss = None")],
        "tests/faults/test_damage.py::test_a_lost_tail_is_refused_with_what_is_missing_and_the_evidence_kept[cut_at_a_frame]",
        r"DID NOT RAISE .*TailLostError",
    ),
    Mutant(
        "the checksum before is left out of an event's",
        "eventstore/codec.py",
        [("_sha256(previous + header + op_bytes", "_sha256(header + op_bytes")],
        "tests/eventstore/test_codec.py::test_seal_gives_the_checksum_of_the_vector[1]",
        r"assert '\w+\.\.\.\w+' == '\w+\.\.\.\w+'",
    ),
    Mutant(
        "the events of a batch are all sealed on the one before it",
        "eventstore/commit.py",
        [("            checksum = event.checksum\n", "")],
        "tests/faults/test_kill.py::test_one_writer_is_killed_fifty_times[0]",
        r"altered, or out of its place|ChecksumError",
    ),
    Mutant(
        "verify sees every row follow the one before",
        "eventstore/codec.py",
        [("sha256(salted).digest()))).digest() != checksum:", "sha256(salted).digest()))).digest() is None:")],
        "tests/eventstore/test_verify.py::test_an_edit_anywhere_is_one_finding_there[3]",
        r"assert \[\] == \[\(3, 'checksum'\)\]",
    ),
    Mutant(
        "verify sees every event follow the one before",
        "eventstore/links.py",
        [("        if expected == event.checksum:\n            return\n", "        if expected:\n            return\n")],
        "tests/eventstore/test_verify.py::test_an_edit_anywhere_is_one_finding_there[3]",
        r"assert \[\] == \[\(3, 'checksum'\)\]",
    ),
    Mutant(
        "what is folded is not held against its checksum",
        "eventstore/live.py",
        [("check_all(self.states.head, some, self.log.domain)", "pass")],
        "tests/faults/test_beside.py::test_a_row_altered_under_an_open_store_is_named_by_verify_and_by_the_next_opening",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a value is read without a look at its checksum",
        "eventstore/live.py",
        [("            check_linked(linked, self.log.domain)\n", "")],
        "tests/faults/test_beside.py::test_a_value_altered_under_an_open_store_is_never_handed_out",
        r"DID NOT RAISE .*ChecksumError",
    ),
    Mutant(
        "a pointer file is believed without its checksum",
        "eventstore/pointers.py",
        [("if hashlib.sha256(body).digest() != content[start : start + 32]:", "if not body:")],
        "tests/eventstore/test_pointers.py::test_a_wrong_file_is_ignored_with_a_warning[a bit flipped in the middle-keys]",
        r"None} != .*KeyState",
    ),
    Mutant(
        "files replaced under an open store are not noticed",
        "eventstore/sqlite.py",
        [("            self._require_same_files()\n", "")],
        "tests/faults/test_fenced.py::test_a_file_replaced_under_an_open_store_fences_it[unlinked-db]",
        r"DID NOT RAISE .*FencedError",
    ),
]

IN_TURN = [
    Mutant(
        "the lock between processes is not taken",
        "eventstore/files.py",
        [("fcntl.flock(descriptor, kind | fcntl.LOCK_NB)", "pass")],
        "tests/faults/test_locks.py::test_a_write_names_who_holds_the_lock[the_lock]",
        r"DID NOT RAISE .*UnavailableError",
    ),
    Mutant(
        "what to write is decided before the lock",
        "eventstore/sqlite.py",
        [
            ("            self._head_file.lock(self._what, self.busy_timeout_ms)\n", ""),
            (
                "            self._file.append(events, after=after, durability=level, erase=erase)\n",
                "            self._head_file.lock(self._what, self.busy_timeout_ms)\n"
                "            self._file.append(events, after=after, durability=level, erase=erase)\n",
            ),
        ],
        "tests/eventstore/test_several_writers.py::test_a_large_batch_lands_at_its_first_try_beside_a_busy_writer",
        r"assert \d+ == 1|TailLostError",
    ),
    Mutant(
        "what a write expected is not asked",
        "eventstore/rules.py",
        [("    if not met:\n", "    if met is None:\n")],
        "tests/eventstore/test_public_face.py::test_an_update_starts_again_when_another_writer_was_first",
        r"assert \[1\] == \[1, 10, 100\]",
    ),
    Mutant(
        "a transaction begins as a reader's",
        "eventstore/logfile.py",
        [('writer.execute("BEGIN IMMEDIATE")', 'writer.execute("BEGIN")')],
        "tests/faults/test_locks.py::test_nobody_writes_between_the_head_that_a_write_asks_for_and_its_first_row",
        r"database is locked",
    ),
    Mutant(
        "the checkpoint does not wait for writers",
        "eventstore/sqlite.py",
        [('self._file.checkpoint("RESTART")', 'self._file.checkpoint("PASSIVE")')],
        "tests/faults/test_locks.py::test_checkpoints_are_never_passive_and_always_under_the_lock",
        r"PASSIVE",
    ),
    Mutant(
        "an id is not looked up in the log",
        "eventstore/commit.py",
        [("self._ids.get(event_id) or self._live.ids.find(event_id)", "self._ids.get(event_id)")],
        "tests/eventstore/test_idempotency.py::test_a_retry_after_a_restart_gets_the_first_answer[write_value]",
        r"assert Receipt.* == Receipt",
    ),
    Mutant(
        "an id that stands before the pointer files is not looked up",
        "eventstore/pointers.py",
        [("            if reach < self._since:\n", "            if reach < 0:\n")],
        "tests/eventstore/test_idempotency.py::test_ids_are_found_whatever_became_of_the_pointer_files[no files of ids]",
        r"assert Receipt.* == Receipt",
    ),
    Mutant(
        "an id in a pointer file is not looked up",
        "eventstore/pointers.py",
        [("for run in reversed(runs):\n", "for run in runs[:0]:\n")],
        "tests/eventstore/test_idempotency.py::test_ids_are_found_whatever_became_of_the_pointer_files[none]",
        r"assert Receipt.* == Receipt",
    ),
    Mutant(
        "a forked child keeps its parent's lock",
        "eventstore/sqlite.py",
        [("            self._draft = None\n            self._head_file.close()\n", "            self._draft = None\n")],
        "tests/faults/test_fork.py::test_a_killed_parents_lock_does_not_live_on_in_its_child[forked while locked]",
        r"UnavailableError",
    ),
    Mutant(
        "a forked child believes in locks that a fork does not copy",
        "eventstore/logfile.py",
        [("                fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)\n", "")],
        "tests/faults/test_fork.py::test_a_parent_may_close_while_its_child_writes",
        r"FencedError|TailLostError|FormatError|in close_beside_a_child",
    ),
    Mutant(
        "a signal may come between BEGIN and the receipt",
        "eventstore/sqlite.py",
        [("            defer_signals(signals)\n", "")],
        "tests/faults/test_signals.py::test_an_interrupt_at_every_step_of_a_write_leaves_nothing_behind[6]",
        r"was left behind",
    ),
    Mutant(
        "readers are not told of a write that is not durable",
        "eventstore/sqlite.py",
        [('if level == "process":\n                self._head_file.hint(head.position)', 'if level == "process":\n                pass')],
        "tests/eventstore/test_several_writers.py::test_other_processes_see_a_write_as_soon_as_it_is_acknowledged",
        r"assert '0 2' == '1 2'",
    ),
    Mutant(
        "callers that share a transaction get each other's receipts",
        "eventstore/group.py",
        [("zip(taken, answers, strict=True)", "zip(taken, answers[::-1], strict=True)")],
        "tests/eventstore/test_several_writers.py::test_threads_of_one_store_append_side_by_side",
        r"assert dict_items.* <= dict_items",
    ),
    Mutant(
        "callers that share a transaction are answered although it failed",
        "eventstore/commit.py",
        [
            ("        except ConflictError:\n", "        except EngineError:\n            break\n        except ConflictError:\n"),
            ("import ConflictError, ", "import ConflictError, EngineError, "),
        ],
        "tests/faults/test_machine.py::test_a_limit_on_file_sizes_is_a_full_disk_and_no_death[100-70000-power]",
        r"assert len\(list\(domain\.events",
    ),
]

SEALED = [
    Mutant(
        "a seal is as durable as any other event",
        "eventstore/sqlite.py",
        [('level = "power+"  # what', 'level = "process"  # what')],
        POWER_LOSS + "test_a_log_is_sealed_while_it_is_written[ci-process]",
        r"states are wrong",
    ),
    Mutant(
        "the next file has its name before its bytes",
        "eventstore/database.py",
        [("    os.fsync(descriptor)\n", "")],
        POWER_LOSS + "test_a_log_is_sealed_while_it_is_written[ci-None]",
        r"states are wrong",
    ),
    Mutant(
        "the name of the next file is not durable before it is written to",
        "eventstore/database.py",
        [
            (
                "    new.rename(path)\n    sync_folder(path.parent)\n    sync_folder(path.parent.parent)",
                "    new.rename(path)\n    (path.parent.parent)",
            )
        ],
        POWER_LOSS + "test_a_log_is_sealed_while_it_is_written[ci-power]",
        r"states are wrong",
    ),
    Mutant(
        "removed keys are not carried",
        "eventstore/rolling.py",
        [("WHERE position < ?1 GROUP BY key)", "WHERE position < ?1 AND op <> 'remove' GROUP BY key)")],
        "tests/eventstore/test_seal.py::test_the_past_is_what_the_events_say[folder]",
        r"assert",
    ),
    Mutant(
        "what is carried is not held against the seal",
        "eventstore/carried.py",
        [("        _require_as_sealed(last, digest, start, domain)\n", "        pass\n")],
        "tests/eventstore/test_seal.py::test_a_log_that_lost_a_key_over_a_seal_is_refused",
        r"DID NOT RAISE",
    ),
    Mutant(
        "who finds a seal at the head writes behind it",
        "eventstore/sqlite.py",
        [("            if self._sealed:\n                self._go_on()\n            if moved:", "            if moved:")],
        "tests/eventstore/test_seal.py::test_whoever_has_the_log_open_walks_through",
        r"structure|assert",
    ),
]

ARCHIVED = [
    Mutant(
        "the original goes before the event is durable",
        "eventstore/archive.py",
        [
            (
                "        kept: list[KeptFile] = []\n        if group.record",
                "        kept: list[KeptFile] = []\n        with live.log.writing():\n            drop(log, file.first, file.last)\n"
                "        if group.record",
            )
        ],
        POWER_LOSS + "test_sealed_files_are_archived[ci]",
        r"went before that was on record",
    ),
    Mutant(
        "the copy in the archive is not synced",
        "eventstore/archive.py",
        [("        sync_file(copy)\n", "")],
        POWER_LOSS + "test_sealed_files_are_archived[ci]",
        r"states are wrong",
    ),
    Mutant(
        "an archived file is not held against its hash",
        "eventstore/logfiles.py",
        [("            elif found != wanted:", "            elif found is wanted is None:")],
        "tests/eventstore/test_archive.py::test_a_flip_that_no_event_sees_is_found_by_the_hash",
        r"assert \[\] == \['archive'\]",
    ),
    Mutant(
        "what an event names goes although its copy is not there",
        "eventstore/archive.py",
        [("        if why is None:\n            with", "        if why is None or True:\n            with")],
        "tests/eventstore/test_archive.py::test_what_was_left_in_the_store_stays_if_its_copy_is_not_whole[missing]",
        r"CompactedError",
    ),
    Mutant(
        "a damaged file is archived",
        "eventstore/archive.py",
        [("        for finding in walked.findings:\n", "        for finding in walked.findings[:0]:\n")],
        "tests/eventstore/test_archive.py::test_a_damaged_file_is_not_archived",
        r"DID NOT RAISE",
    ),
]

MUTANTS = [*DURABLE, *NOTICED, *IN_TURN, *SEALED, *ARCHIVED]
