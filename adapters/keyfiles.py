"""What is asked of a file that holds a private key, whichever it is: it lies in no store and in no backup, and nobody else may read it."""

from __future__ import annotations

import os
from pathlib import Path

from eventstore.copies import holder_of
from eventstore.errors import ConfigError


def require_apart(path: Path) -> None:
    """Refuse a place in the folder of a store or a backup, there or still to be made. Raises ConfigError."""
    holder = holder_of(path)
    if holder is not None:
        what, folder = holder
        raise ConfigError(f"{path} lies inside the {what} {folder}: whoever copies that would have the key; keep it elsewhere")


def require_private(path: str | os.PathLike[str], mode: int) -> None:
    """Refuse a file that others may read, by its permissions. Raises ConfigError."""
    if mode & 0o077:
        raise ConfigError(f"{path}: others may use what it holds (mode {mode:04o}, expected 0600): chmod 600, or make a new key")
