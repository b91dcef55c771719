"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.faults.workers import Server, serving


@pytest.fixture(scope="session")
def clean_server() -> Iterator[Server]:
    """One server for all tests of a process."""
    with serving() as server:
        yield server


@pytest.fixture
def server(clean_server: Server) -> Iterator[Server]:
    """Starts workers; whatever a test leaves behind is ended with it."""
    yield clean_server
    clean_server.tidy()


@pytest.fixture
def seed() -> str:
    """What all chances of a test follow from. A test shows it when it fails; FAULTS_SEED repeats it."""
    return os.environ.get("FAULTS_SEED") or secrets.token_hex(4)
