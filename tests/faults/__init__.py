"""Faults that are made to happen: killed processes, flipped bytes, lost tails, full disks, replaced files, interrupts.

    workers   processes to be killed, forked by a clean server        jobs    what they do
    ledger    what was acknowledged, and the proof that it is there   stores  stores to damage, their bytes before and after

    shim.c, recorder      what a process does to a folder, call by call; calls that are refused
    disk, crash_states    the same folder rebuilt; what of it may be left after the power failed at one of these calls
    lives, survival       recorded lives; what must have survived them, and the proof
    pasts                 lives of a store whose past is elsewhere
    refusals              what a writer does whose disk refuses a call
    turns                 orders that two processes at one store carry out in turns

    mutants               the library with one promise broken in each, and the test that must notice

FAULTS_SEED in the environment repeats a run: what a worker writes, the instants of its kills, which bytes are flipped, which crash
states are tried, which calls refused. FAULTS_STATE narrows it to one crash state.
"""
