"""Faults that are made to happen: killed processes, flipped bytes, lost tails, full disks, replaced files, interrupts.

    workers   processes to be killed, forked by a clean server        jobs    what they do
    ledger    what was acknowledged, and the proof that it is there   stores  stores to damage, their bytes before and after

FAULTS_SEED in the environment repeats a run: what a worker writes, the instants of its kills, which bytes are flipped.
"""
