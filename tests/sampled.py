"""Cases of a table, of which the default run asks a sample and .ci/run asks them all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[str], *often: str) -> list[Any]:
    """Every case, for pytest.mark.parametrize; those that are not named are `slow`. Raises ValueError for a name that is none of them."""
    every = list(cases)
    if unknown := set(often) - set(every):
        raise ValueError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    return [pytest.param(case, id=case, marks=() if case in often else pytest.mark.slow) for case in every]
