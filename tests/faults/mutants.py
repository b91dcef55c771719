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
            ('writer.execute("COMMIT")\n            self.commit_us', "pass\n            self.commit_us"),
        ],
        "tests/faults/test_kill.py::test_one_writer_is_killed_fifty_times[0]",
        LOST + "|database table is locked",
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
        [("file.flush()\n            os.fsync(file.fileno())", "file.flush()")],
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
        "resume() goes on with older files",
        "eventstore/keeping.py",
        [("if seen is not None and (sentence", "if not self._files and (sentence")],
        "tests/faults/test_fenced.py::test_an_older_copy_in_the_place_of_the_store_is_not_resumed_from[as it was]",
        r"DID NOT RAISE",
    ),
    Mutant(
        "resume() goes on with the connection that failed",
        "eventstore/keeping.py",
        [
            (
                "            self._require_space()\n            files, file, head_file, known = ",
                "            self._halted = self._file.failed = None\n            return\n            files, file, head_file, known = ",
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
        "eventstore/keeping.py",
        [
            (
                "self._head_file.witness(head)\n            self._heads.raise_head(self.domain, head)",
                "self._head_file.witness(head)",
            )
        ],
        "tests/faults/test_damage.py::test_wal_and_witness_deleted_together_are_missed_by_the_manifest",
        r"DID NOT RAISE .*TailLostError",
    ),
    Mutant(
        "the tail is not judged at opening",
        "eventstore/keeping.py",
        [
            (
                "loss = self._judge(found)\n        if loss is not None:\n            # Before",
                "loss = None\n        if loss is not None:\n            # Before",
            )
        ],
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
        [('"TRUNCATE" if self._erasing else "RESTART"', '"PASSIVE"')],
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
        "eventstore/event_ids.py",
        [("        while reach < self._since:\n", "        while reach < 0:\n")],
        "tests/eventstore/test_idempotency.py::test_ids_are_found_whatever_became_of_the_pointer_files[no files of ids]",
        r"assert Receipt.* == Receipt",
    ),
    Mutant(
        "an id is read again from a row that does not prove itself",
        "eventstore/event_ids.py",
        [("            check(head, event, self._log.domain)\n", "            pass\n")],
        "tests/eventstore/test_event_ids.py::test_a_row_that_does_not_prove_itself_says_no_id[one-1]",
        r"DID NOT RAISE",
    ),
    Mutant(
        "an id in a pointer file is not looked up",
        "eventstore/event_ids.py",
        [("for run in reversed(runs):\n", "for run in runs[:0]:\n")],
        "tests/eventstore/test_idempotency.py::test_ids_are_found_whatever_became_of_the_pointer_files[none]",
        r"assert Receipt.* == Receipt",
    ),
    Mutant(
        "a file is archived before its ids are kept",
        "eventstore/archive.py",
        [("    live.keep_ids(file.last)\n", "")],
        "tests/eventstore/test_archived_ids.py::test_an_attached_archive_gives_lost_ids_back[gone]",
        r"ValueError: not enough values to unpack",
    ),
    Mutant(
        "the past is deleted before its ids are kept",
        "eventstore/retention.py",
        [("        group.live.keep_ids(file.last)\n", "")],
        "tests/faults/test_turns.py::test_a_life_that_is_told_step_by_step",
        r"LostIdsError",
    ),
    Mutant(
        "tables are made of the last file alone",
        "tools/export_tables.py",
        [
            (
                "            rows.append(_row(domain.name, each.event))\n",
                "            rows += [_row(domain.name, each.event)] * (each.event.position >= domain.group.live.log.file().first)\n",
            )
        ],
        "tests/faults/test_turns.py::test_a_life_that_is_told_step_by_step",
        r"more items, first extra item|At index 0 diff",
    ),
    Mutant(
        "a forked child keeps its parent's lock",
        "eventstore/files.py",
        [("    for file in list(_lock_files):\n        file.close()\n", "    pass\n")],
        "tests/faults/test_fork.py::test_a_killed_parents_lock_does_not_live_on_in_its_child[forked while locked]",
        r"UnavailableError",
    ),
    Mutant(
        "a forked child believes in locks that a fork does not copy",
        "eventstore/logfile.py",
        [("                lock_bytes(descriptor, start, length)\n", "")],
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
        "a cancelled write goes on behind its caller's back",
        "eventstore/awaited.py",
        [("                if self._group.withdraw(waiting):\n                    raise\n", "                raise\n")],
        "tests/faults/test_signals.py::test_a_storm_of_cancellations_loses_and_doubles_nothing[0]",
        r"was answered with .*, and that changed",
    ),
    Mutant(
        "callers that share a transaction are answered although it failed",
        "eventstore/commit.py",
        [
            (
                "        except ConflictError as conflict:\n            # The head that",
                "        except EngineError:\n            break\n        except ConflictError as conflict:\n            # The head that",
            ),
            ("import ConflictError, ", "import ConflictError, EngineError, "),
        ],
        "tests/faults/test_machine.py::test_a_limit_on_file_sizes_is_a_full_disk_and_no_death[100-70000-power]",
        r"assert len\(list\(domain\.events",
    ),
]

PROVEN = [
    Mutant(
        "a time is believed that no checksum proves",
        "eventstore/log.py",
        [("        check_linked(linked, log.domain)\n    return [linked.event for", "    return [linked.event for")],
        "tests/faults/test_damage.py::test_no_bit_in_a_time_leads_to_another_moment",
        r"assert \d+ == \d+|AssertionError",
    ),
    Mutant(
        "a child of who owns a store writes on",
        "eventstore/local.py",
        [("return None if self._lease is None else", "return None if self._lease is not None else")],
        "tests/eventstore/test_lease.py::test_a_forked_child_writes_under_the_owners_name_once_it_has_the_lease_itself[d]",
        r"Traceback .*HaltedError",
    ),
    Mutant(
        "an anchor is believed without its root",
        "eventstore/anchors.py",
        [("if anchored.root is not None and grow", "if anchored.root is None and grow")],
        "tests/eventstore/test_anchors.py::test_a_root_that_is_not_the_logs_is_altered_although_the_checksum_stands",
        r"EXTENDED",
    ),
    Mutant(
        "what an archive event says of the tree is not held against the leaves",
        "eventstore/roots.py",
        [("if any(each.tree != true", "if any(each.tree is true")],
        "tests/eventstore/test_roots.py::test_a_forged_tree_is_a_finding_as_soon_as_the_archive_is_attached",
        r"assert \[\] == \[\(18, 'tree'\)\]",
    ),
    Mutant(
        "an anchor below the floor is judged by what is carried",
        "eventstore/anchors.py",
        [("    if position >= floor:\n        return\n", "    if position >= floor or anchored.root is None:\n        return\n")],
        "tests/eventstore/test_roots.py::test_below_the_floor_there_is_no_verdict_and_no_proof_and_it_is_said_where_they_are[archive_all]",
        r"Regex pattern did not match",
    ),
    Mutant(
        "a bundle leaves that proves nothing",
        "eventstore/bundles.py",
        [("        if not proves_inclusion(", "        if not path and not proves_inclusion(")],
        "tests/eventstore/test_bundles.py::test_an_event_that_is_altered_while_it_is_bundled_does_not_leave",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a log that was sealed anew passes for the anchored one continued",
        "tools/verify_bundle.py",
        [("last == 0 and old_found == old_root and found == root", "last == 0 and found == root")],
        "tests/eventstore/test_bundles.py::test_a_tail_sealed_anew_is_no_continuation_of_what_was_anchored",
        r"assert \[1, 2, 3, 4, 5, 6\] == \[\]",
    ),
    Mutant(
        "an event is proven at another position",
        "tools/verify_bundle.py",
        [
            (
                "        if at % 2 == 1 or at == last:\n            found = node(other, found)",
                "        if other < found:\n            found = node(other, found)",
            )
        ],
        "tests/eventstore/test_merkle.py::test_every_leaf_is_proven_by_the_path_that_the_rfc_defines",
        r"assert 2 == 1",
    ),
    Mutant(
        "any signature is one",
        "tools/verify_bundle.py",
        [("== signature[:32]", "!= signature[32:]")],
        "tests/tools/test_verify_bundle.py::test_a_signature_of_anything_else_is_refused",
        r"== set\(\)|== \(set\(\)",
    ),
]

BACKUP = "tests/faults/test_backup.py::"

BACKED_UP = [
    Mutant(
        "a copy is not synced",
        "eventstore/logfile.py",
        [("        sync_file(target)\n", "")],
        BACKUP + "test_the_power_fails_during_backups[ci]",
        r"is not what was backed up",
    ),
    Mutant(
        "the copy before is removed for one whose name may not last",
        "eventstore/backup.py",
        [("        replace_file(target / copies.NAME, msgspec.json.encode(backup))\n    _remove", "        pass\n    _remove")],
        BACKUP + "test_backups_are_killed_and_then_the_power_fails[ci]",
        r"is not what was backed up",
    ),
    Mutant(
        "a refused name leaves the copy that it may name removed",
        "eventstore/backup.py",
        [("                if not copying.is_named:\n", "                if copying:\n")],
        BACKUP + "test_the_disk_of_the_backup_refuses_a_call[sync-5-always]",
        r"is not what was backed up",
    ),
    Mutant(
        "a restored store is not synced before it appears",
        "eventstore/restore.py",
        [("    for folder in reversed(folders):\n        sync_folder(folder)\n", "")],
        BACKUP + "test_the_power_fails_during_a_restore[ci]",
        r"no store here|is missing|are gone|AssertionError",
    ),
    Mutant(
        "a log is copied as it is when its turn comes, not as of one moment",
        "eventstore/backup.py",
        [("        file.hold()\n", "")],
        BACKUP + "test_a_writer_is_not_kept_waiting_for_the_copying",
        r"== 1_?100",
    ),
    Mutant(
        "a file that changed is taken for the one that was copied",
        "eventstore/backup.py",
        [("Original(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)", "Original(status.st_ino, 0, 0, 0)")],
        "tests/eventstore/test_backup.py::test_what_was_erased_in_the_store_is_gone_from_the_next_backup[with links]",
        r"assert \(2, 0\) == \(1, 1\)|CorruptionError",
    ),
    Mutant(
        "a file that rotted in the backup is kept",
        "eventstore/backup.py",
        [("digest_of(there) != (known.bytes, known.sha256)", "not known.bytes")],
        "tests/eventstore/test_backup.py::test_a_file_that_rotted_in_the_backup_is_copied_again_and_named",
        r"CorruptionError|assert \[\] == ",
    ),
    Mutant(
        "a copy counts although its proof failed",
        "eventstore/backup.py",
        [("        for finding in found.findings:\n", "        for finding in found.findings[:0]:\n")],
        "tests/eventstore/test_backup.py::test_a_damaged_store_is_not_backed_up_and_the_backup_before_stays[a value]",
        r"DID NOT RAISE|assert found.head is not None",
    ),
    Mutant(
        "a copy is not held against what the store knows of its end",
        "eventstore/backup.py",
        [
            ("        if witness:\n", "        if not witness:\n"),
            ("self._write_manifest(known, known.heads)", "self._write_manifest(known, {})"),
        ],
        "tests/eventstore/test_backup.py::test_a_damaged_store_is_not_backed_up_and_the_backup_before_stays[the end]",
        r"DID NOT RAISE",
    ),
    Mutant(
        "an older store replaces the backup of a newer one",
        "eventstore/backup.py",
        [("if not events or events[0].checksum != known.head().checksum:", "if not known:")],
        "tests/eventstore/test_backup.py::test_an_older_store_does_not_replace_the_backup_of_a_newer_one",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a backup may be written",
        "eventstore/copies.py",
        [("    if not read_only:\n", "    if read_only is None:\n")],
        "tests/eventstore/test_backup.py::test_a_backup_is_read_and_never_written[]",
        r"DID NOT RAISE .*BackupError",
    ),
    Mutant(
        "a restored file is not held against its hash",
        "eventstore/restore.py",
        [("        if (found.bytes, found.sha256) != (file.bytes, file.sha256):\n", "        if not found.bytes:\n")],
        "tests/eventstore/test_backup.py::test_a_damaged_backup_is_not_restored_and_the_file_is_named[longer-logs/notes/head]",
        r"DID NOT RAISE",
    ),
]


REDACT = "tests/eventstore/test_redact.py::"

ERASED = [
    Mutant(
        "an import passes by what was redacted in the source",
        "tools/import_events.py",
        [("    redactions.carry_out(target, known.shared, counts)\n", "")],
        "tests/tools/test_import_redactions.py::test_what_was_redacted_in_the_source_is_in_no_file_of_who_imports_it[mirror]",
        r"\(1, 3, 0\)",
    ),
    Mutant(
        "a domain is made before its events are proven",
        "tools/import_events.py",
        [("            events = kept.enter_context(_whole(events, header, store))\n", "")],
        "tests/tools/test_import_wrong.py::test_an_export_that_was_cut_off_makes_no_domain_wherever_it_goes[another store-3]",
        r"\{'notes': 0\}",
    ),
    Mutant(
        "SQLite leaves erased bytes where they stood",
        "eventstore/database.py",
        [('"secure_delete=ON"', '"secure_delete=OFF"')],
        REDACT + "test_no_file_holds_what_was_erased[200]",
        r"assert \['logs/people",
    ),
    Mutant(
        "SQLite keeps pages that it erases in a file of its own",
        "eventstore/database.py",
        [('"temp_store=MEMORY"', '"temp_store=FILE"')],
        REDACT + "test_sqlite_writes_what_it_erases_to_no_file_outside_the_store",
        r"etilqs",
    ),
    Mutant(
        "a redaction is recorded and nothing erased",
        "eventstore/commit.py",
        [("durability=level, erase=own.erase)", "durability=level)")],
        REDACT + "test_every_value_that_a_key_ever_had_is_erased[folder]",
        r"'put', '.th",
    ),
    Mutant(
        "the write-ahead log keeps what was erased",
        "eventstore/sqlite.py",
        [('"TRUNCATE" if self._erasing else "RESTART"', '"RESTART"')],
        REDACT + "test_no_file_holds_what_was_erased[200]",
        r"assert \['logs/people",
    ),
    Mutant(
        "a redaction that was killed is not finished",
        "eventstore/erasure.py",
        [("    if log.wal_bytes():\n", "    if held and log.wal_bytes():\n")],
        REDACT + "test_a_redaction_whose_process_was_killed_is_finished_by_the_next_opening",
        r"assert \['logs/people",
    ),
    Mutant(
        "an altered archive passes for one that was redacted in",
        "eventstore/erasure.py",
        [("        prove_events(path, ", "        (lambda *_, **__: None)(path, ")],
        REDACT + "test_an_archive_that_was_altered_is_told_so_though_a_redaction_awaits_its_record[an event]",
        r"assert \[\] == \[True\]",
    ),
    Mutant(
        "a sealed file that cannot be read is not named",
        "eventstore/logfiles.py",
        [("                    unseen[path] = str(error)\n", "                    str(error)\n")],
        REDACT + "test_a_file_that_rotted_keeps_nobody_from_writing_and_is_named_as_what_may_hold_a_copy[header-own]",
        r"assert",
    ),
    Mutant(
        "other processes keep redacted values in memory",
        "projections/key_states.py",
        [("                    size -= self._erase(domain, read_redaction(data).positions)\n", "                    pass\n")],
        REDACT + "test_no_cache_of_any_process_answers_any_more",
        r"assert '1' is None|DID NOT RAISE",
    ),
    Mutant(
        "what is stored of a request is a hash of its values",
        "eventstore/commit.py",
        [("i.data if values else None)", "i.data)")],
        REDACT + "test_the_same_request_is_stored_for_every_value[memory:]",
        r"assert 5 == 1",
    ),
    Mutant(
        "a value is encrypted with a key that is not durable",
        "adapters/keyring.py",
        [
            (
                "            file.write(line)\n            file.flush()\n            os.fsync(file.fileno())\n",
                "            file.write(line)\n",
            )
        ],
        POWER_LOSS + "test_a_destroyed_key_stays_destroyed_and_every_other_is_there[ci]",
        r"MissingKeyError|was acknowledged and is",
    ),
    Mutant(
        "a key that is destroyed may come back with the power",
        "adapters/keyring.py",
        [("        new.rename(self.path)\n        sync_folder(self.path.parent)\n", "        new.rename(self.path)\n")],
        POWER_LOSS + "test_a_destroyed_key_stays_destroyed_and_every_other_is_there[ci]",
        r"was shredded, and is|MissingKeyError|FormatError",
    ),
    Mutant(
        "a value is committed whose key was destroyed while it waited",
        "eventstore/coding.py",
        [("return blob if self.cipher.lives(blob.key_id) else blob.again()", "return blob")],
        "tests/eventstore/test_shred.py::test_a_batch_that_outlives_its_subjects_key_is_encrypted_with_the_next_one",
        r"RedactedError",
    ),
    Mutant(
        "a ciphertext may be moved to another key",
        "eventstore/coding.py",
        [("self._store_id, domain, key, names])", "self._store_id, domain, names])")],
        "tests/eventstore/test_shred.py::test_a_ciphertext_cannot_be_altered_swapped_or_moved",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a blob is unpacked however large it is",
        "eventstore/coding.py",
        [("    if len(plain) > max_bytes:\n", "    if len(plain) < 0:\n")],
        "tests/eventstore/test_coding.py::test_a_blob_that_is_not_what_it_says_is_a_format_error_and_a_finding[memory:-a bomb]",
        r"inflates to more than",
    ),
]


SEALED = [
    Mutant(
        "the next file is derived from a seal that is not durable",
        "eventstore/sqlite.py",
        [
            ('level = "power+"  # what', 'level = "process"  # what'),
            (
                "                    self._renew_witness(self._known)\n                path",
                "                    pass\n                path",
            ),
            (
                '            self._file.checkpoint("TRUNCATE")\n        except sqlite3.Error as error:\n            _log',
                "            pass\n        except sqlite3.Error as error:\n            _log",
            ),
        ],
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
        "the next file is written to before its name is durable",
        "eventstore/files.py",
        [("    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)\n", "    pass\n")],
        POWER_LOSS + "test_a_log_is_sealed_while_it_is_written[ci-power]",
        r"states are wrong",
    ),
    Mutant(
        "removed keys are not carried",
        "eventstore/logfile.py",
        [("position <= ? ORDER BY position LIMIT ?) GROUP", "position <= ? AND op <> 'remove' ORDER BY position LIMIT ?) GROUP")],
        "tests/eventstore/test_seal.py::test_the_past_is_what_the_events_say[folder]",
        r"it is damaged",
    ),
    Mutant(
        "what was written since a seal was prepared is not carried",
        "eventstore/rolling.py",
        [("        self.read_on(last)\n", "")],
        "tests/eventstore/test_seal.py::test_what_is_written_while_a_seal_is_prepared_is_carried[3]",
        r"it is damaged",
    ),
    Mutant(
        "what was prepared of another file is carried",
        "eventstore/sqlite.py",
        [(" and latest.file is self._file else", " else")],
        "tests/eventstore/test_seal.py::test_who_seals_while_a_seal_is_prepared_leaves_no_trace_in_it",
        r"closed database|is not carried",
    ),
    Mutant(
        "writers wait for the whole log to be read",
        "eventstore/sqlite.py",
        [("        self._latest = latest\n", "")],
        "tests/eventstore/test_seal.py::test_what_writers_wait_for_does_not_grow_with_the_log",
        r"assert \d+ < ",
    ),
    Mutant(
        "what is carried is not held against the seal",
        "eventstore/carried.py",
        [("        _require_as_sealed(last, digest, start, domain)\n", "        pass\n")],
        "tests/eventstore/test_seal.py::test_a_log_that_lost_a_key_over_a_seal_is_refused",
        r"the file was altered|DID NOT RAISE",
    ),
    Mutant(
        "who finds a seal at the head writes behind it",
        "eventstore/sqlite.py",
        [("        while (sealed := self._file) is self._sealed:\n", "        while (sealed := self._file) is None:\n")],
        "tests/eventstore/test_seal.py::test_whoever_has_the_log_open_walks_through",
        r"nothing is appended to it",
    ),
]

ARCHIVED = [
    Mutant(
        "the original goes before the event is durable",
        "eventstore/archive.py",
        [
            (
                "            kept: list[KeptFile] = []\n            if group.record",
                "            kept: list[KeptFile] = []\n            with live.log.writing():\n"
                "                drop(log, file.first, file.last)\n            if group.record",
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
        [("            elif found not in wanted:", "            elif found is wanted is None:")],
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
        "a copy of a store deletes from its original's archive",
        "eventstore/claims.py",
        [("    if theirs:\n        return", "    if theirs and not store:\n        return")],
        "tests/eventstore/test_archive.py::test_only_the_store_that_put_files_there_deletes_them[copied]",
        r"assert \(\[0, 8\], 0, \[\]\) ==",
    ),
    Mutant(
        "a copy of a store erases in its original's archive",
        "eventstore/unfinished.py",
        [("claims.not_to_erase(path.parent, self._store) is not None:", "not path:")],
        "tests/eventstore/test_redact.py::test_a_copy_of_a_store_leaves_its_originals_archive_alone_and_names_it[copied]",
        r"assert \(\[",
    ),
    Mutant(
        "what stands in an archive is taken for the copy unproven",
        "eventstore/archive.py",
        [("            prove_file(group, log, file, target)\n", "            pass\n")],
        "tests/eventstore/test_archive.py::test_what_is_no_whole_copy_is_not_taken[altered]",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a damaged file is archived",
        "eventstore/sealedfile.py",
        [("        for finding in walked.findings:\n", "        for finding in walked.findings[:0]:\n")],
        "tests/eventstore/test_archive.py::test_a_damaged_file_is_not_archived",
        r"DID NOT RAISE",
    ),
    Mutant(
        "a policy that seals by size counts what is carried",
        "eventstore/logfile.py",
        [("        return size - self._not_appended >= by\n", "        return size >= by\n")],
        "tests/eventstore/test_seal.py::test_a_log_is_sealed_by_what_is_appended_whatever_it_carries",
        r"assert \d+ <= ",
    ),
    Mutant(
        "a damaged file is deleted",
        "eventstore/retention.py",
        [("    prove_file(group, log, file, log.file(file.first).path)\n", "")],
        "tests/eventstore/test_archive.py::test_a_damaged_file_is_not_deleted_and_stays_a_finding",
        r"DID NOT RAISE",
    ),
    Mutant(
        "an export that was cut off passes for whole",
        "tools/interchange.py",
        [("        if head is not None and last < head.position:\n", "        if head is not None and last < 0:\n")],
        "tests/tools/test_interchange.py::test_a_file_that_was_cut_off_at_the_end_of_a_line_is_not_taken_for_whole[6]",
        r"DID NOT RAISE",
    ),
    Mutant(
        "an import forgets the event ids of what is elsewhere",
        "eventstore/gone.py",
        [(".keep(beginning.ids, log.head())", ".keep([], log.head())")],
        "tests/tools/test_floor.py::test_an_import_is_the_store_that_was_exported[deleted]",
        r"assert b'",
    ),
    Mutant(
        "a file that was lost is taken for an archived one",
        "tools/floor.py",
        [("    for first in sorted(below - said.keys()):\n", "    for first in sorted(below - below):\n")],
        "tests/tools/test_floor.py::test_a_file_that_was_lost_is_not_passed_over",
        r"DID NOT RAISE",
    ),
]

KEPT_APART = [
    Mutant(
        "whose a folder is does not matter",
        "adapters/json_files.py",
        [("if owner is not None and owner != context:", "if owner is not None and owner is context:")],
        "tests/adapters/test_json_files.py::test_of_two_contexts_with_one_path_the_first_keeps_it",
        r"DID NOT RAISE",
    ),
    Mutant(
        "the name of a document is not durable",
        "adapters/json_files.py",
        [("                sync_folder(folder)\n", "                pass\n")],
        "tests/adapters/test_json_files.py::test_a_document_and_its_name_are_durable_before_the_answer",
        r"assert \[\(False",
    ),
    Mutant(
        "erased candles are handed out of memory",
        "adapters/event_shelf.py",
        [("if erases and not anew:", "if erases and anew:")],
        "tests/adapters/test_event_shelf.py::test_redacted_candles_are_gone_and_stay_so",
        r"assert \[1.0\] is None",
    ),
    Mutant(
        "candles of a call that came second are dropped",
        "adapters/event_shelf.py",
        [(" else _event(context, left)", " else items")],
        "tests/adapters/test_event_shelf.py::test_candles_of_a_call_that_was_overtaken_are_not_lost",
        r"assert \[\] == \[7, 1, 1, 1\]",
    ),
    Mutant(
        "candles of an event that failed are acknowledged",
        "adapters/gathering.py",
        [("            return [_own(error) for _ in calls]\n", "            return [None for _ in calls]\n")],
        "tests/adapters/test_event_shelf.py::test_all_whose_candles_were_in_an_event_that_failed_are_told_so",
        r"<class 'None",
    ),
    Mutant(
        "a call is acknowledged before its candles are written",
        "adapters/gathering.py",
        [("        self._go_on()\n        cancelled", "        self._go_on()\n        call.told.set_result(None)\n        cancelled")],
        "tests/adapters/test_event_shelf.py::test_calls_that_wait_while_a_commit_is_under_way_become_one_event",
        r"assert not True",
    ),
    Mutant(
        "the last candle at a moment counts",
        "projections/series.py",
        [("                last -= 1\n                continue\n", "                del self._times[place]\n")],
        "tests/projections/test_series.py::test_a_series_is_what_was_written_first",
        r"AssertionError|IndexError",
    ),
]

SHADOW, CONTRACTS = "tests/tools/test_cli_shadow.py::", "tests/tools/test_cli_contracts.py::"

FOLLOWED = [
    Mutant(
        "a shadow does not say that versions may be missing",
        "tools/shadow.py",
        [("return version if full in certain and full not in since and not lost else", "return version if path else")],
        SHADOW + "test_thousands_of_versions_end_in_the_last_and_none_is_missing_untold",
        "nothing says that versions are missing",
    ),
    Mutant(
        "an empty tree was emptied",
        "tools/shadowing.py",
        [("if gone and not present and not allow_empty:", "if gone and present and not allow_empty:")],
        SHADOW + "test_a_tree_that_is_away_is_no_removal",
        r"assert \(0, False\) == \(2, True\)",
    ),
    Mutant(
        "what is not in this tree is gone, whoever wrote it",
        "tools/shadowing.py",
        [("if _tree_of(event) == self.tree:", "if event:")],
        SHADOW + "test_keys_of_others_and_of_other_trees_stay",
        "AssertionError",
    ),
    Mutant(
        "of several contexts with one path the first is taken",
        "tools/import_contracts.py",
        [("        if len(fitting) == 1:\n", "        if fitting:\n")],
        CONTRACTS + "test_a_record_says_whose_it_is_or_is_listed",
        "code=0",
    ),
    Mutant(
        "paths of files pass for records",
        "adapters/json_layout.py",
        [("return bool(there) and key not in there", "return False")],
        CONTRACTS + "test_a_path_among_keys_is_told_by_each_contract[risk-context0-ids0]",
        "assert 0 == 1",
    ),
]

SERVED = [
    Mutant(
        "a rid names nothing",
        "adapters/rpc.py",
        [("(*call.args, event_id=call.rid)", "(*call.args)")],
        "tests/adapters/test_rpc.py::test_a_write_made_again_is_one_event_and_another_one_is_refused",
        r"DID NOT RAISE",
    ),
    Mutant(
        "what is handed out is written anew",
        "adapters/shapes.py",
        [("return value if self.contract.repair is None or", "return msgspec.Raw(bytes(value).replace(b' ', b'')) if")],
        "tests/adapters/test_rpc.py::test_what_is_kept_is_kept_byte_for_byte",
        r"At index \d+ diff",
    ),
    Mutant(
        "a large text is looked at by the event loop",
        "adapters/shelf.py",
        [("return work() if size < LARGE_BYTES else", "return work() if size >= 0 else")],
        "tests/adapters/test_rpc.py::test_the_event_loop_never_decodes_what_is_large",
        r"_checked_text",
    ),
    Mutant(
        "a namespace that was removed is made anew",
        "adapters/namespaces.py",
        [("if name in self._served and not", "if name in self.folder.parts and not")],
        "tests/tools/test_server.py::test_a_namespace_whose_folder_is_gone_is_refused_alone_until_it_stands_there_again",
        r"KeyError: 'error'",
    ),
    Mutant(
        "a server answers to any name",
        "tools/admission.py",
        [("if not self._is_own(host):", "if self._is_own(host) is None:")],
        "tests/tools/test_server_security.py::test_a_name_that_was_pointed_here_is_not_answered",
        r"assert \(200, True\)",
    ),
]

CLIENT = "tests/tools/test_client.py::"

CALLED = [
    Mutant(
        "a call that is sent again has another rid",
        "tools/persist.mjs",
        [("this.#attempt(request.body,", "this.#attempt(request.body.replace(`${PROCESS}-`, `$&${++calls}`),")],
        CLIENT + "test_a_call_without_an_answer_is_sent_again_and_done_once[lose]",
        r"At index 2 diff: 'writeLogData' != 'readLogData'",
    ),
    Mutant(
        "a call does not wait for those before it",
        "tools/persist.mjs",
        [("await before?.catch(() => {});", "")],
        CLIENT + "test_calls_of_one_context_go_one_after_the_other",
        r"list\(range\(40\)\)|== \[0, 1, 2",
    ),
    Mutant(
        "a write that was given up may come late",
        "tools/persist.mjs",
        [("await this.#settle(place, request);", "")],
        CLIENT + "test_a_write_that_may_yet_arrive_goes_before_what_follows_it",
        r"It came before|\['new', 'newer'\]",
    ),
    Mutant(
        "half an answer is one",
        "tools/persist.mjs",
        [('push(chunk)).on("error", none)', """push(chunk)).on("error", () => resolve({ status: 200, text: '{"ok":true}' }))""")],
        CLIENT + "test_a_call_without_an_answer_is_sent_again_and_done_once[half]",
        r"assert [12] == 3",
    ),
]

MUTANTS = [
    *DURABLE, *NOTICED, *IN_TURN, *PROVEN, *BACKED_UP, *ERASED, *SEALED, *ARCHIVED, *KEPT_APART, *FOLLOWED, *SERVED, *CALLED,
]  # fmt: skip
