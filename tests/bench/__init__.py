"""The benchmark: our verbs beside other stores' in one interleaved run. `python -m tests.bench --help`.

    sample      keys and values everybody writes
    measure     contenders, rows, rounds, ratios
    ours        what eventstore does          peers    what the others do for the same work
    levels      the same events below and above the verbs
    workers     other processes, ours too     rows     which of them meet, and what we want to see
    machine     where it ran                  report   results.json, results.md, the table in README

Numbers never fail a test: they are compared with goals in the table, and by whoever reads it.
"""
