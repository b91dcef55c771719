"""Programs to copy from, and the tests that put them through what they promise.

    live_bot    a small live trader: every order done exactly once, whenever it is killed
    exchange    what it trades at: a stand-in in a process of its own, with a ledger, and with the manners of the real ones

EXAMPLES_SEED in the environment repeats a run's kills.
"""
