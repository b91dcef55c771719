"""kill -9 of a shadow in the midst of its work: it goes on where the log ends, nothing twice, nothing missed, the last version there."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import eventstore as library
from tests.tools.command import done
from tests.tools.shadowed import Follower, require_honest, start_writer, story, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

KILLS = 20


def test_a_shadow_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path, seed: str) -> None:
    data, folder, chance = tmp_path / "data", tmp_path / "dump", random.Random(seed)
    (folder / "a").mkdir(parents=True)
    last, writing, kills, recorded = 1, start_writer(folder / "a", 1, 1), 0, 0
    while kills < KILLS or recorded <= KILLS:
        follower = Follower(folder, data)
        if chance.random() < 0.8:
            follower.ready()
        if writing.poll() is not None:
            first, last = last + 1, last + 400
            writing = start_writer(folder / "a", first, last, pause=0.001)
        time.sleep(chance.uniform(0, 0.4))  # anywhere in its work; nothing is expected of that moment
        follower.process.kill()
        follower.end(0)
        kills += 1
        if (data / "store.json").exists():
            with library.open(data) as store:
                report = store.verify()
            assert report.ok
            recorded = sum(each.events for each in report.domains)
    until(lambda: writing.poll() is not None, "the writer's end")
    done("shadow", folder, data, "--once")
    before = story(data)
    done("shadow", folder, data, "--once")
    assert story(data) == before
    require_honest(data, 1, last)
