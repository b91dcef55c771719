"""Signed anchors: who holds the private key made this one, and nobody changed it since. Ed25519, by the extra `crypto`.

A signature makes an anchor safe to keep where others can write. The key that stands in an anchor proves nothing: whoever forges an
anchor writes down a key of his own. So a signature is checked against a key that came by another way.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.keyfiles import require_apart, require_private
from eventstore.anchors import Anchor, Signature
from eventstore.errors import ConfigError, SignatureError
from eventstore.files import os_errors

KeyFile = str | os.PathLike[str]
"""The path of an Ed25519 key in PEM."""

_NO_CRYPTOGRAPHY = "signatures need the package cryptography: install eventstore-kit[crypto]"


def require_signature(anchor: Anchor, public_key: KeyFile) -> None:
    """Make sure that the owner of a key signed this anchor. Raises SignatureError; ConfigError, EngineError for the key's file."""
    given = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature  # only now: without the extra, the line above says what to install

    known = given.public_bytes_raw().hex()
    if anchor.signature is None:
        raise SignatureError(f"the anchor is not signed, expected a signature by {known}: use the anchor that was signed")
    if anchor.signature.key != known:
        raise SignatureError(f"the anchor says that it was signed by {anchor.signature.key}, expected {known}; who gave you this anchor?")
    try:
        given.verify(bytes.fromhex(anchor.signature.signature), anchor.signed_bytes())
    except InvalidSignature as error:
        raise SignatureError(f"the anchor was not signed by {known}: it was altered or forged; do not believe it") from error


def sign(anchor: Anchor, private_key: KeyFile) -> Anchor:
    """The anchor with a signature. Raises ConfigError for a key that cannot be used, that others can, or that lies in a store's or a
    backup's folder; EngineError for its file.
    """
    private = _private_key(private_key)
    signature = Signature(private.public_key().public_bytes_raw().hex(), private.sign(anchor.signed_bytes()).hex())
    return msgspec.structs.replace(anchor, signature=signature)


def _private_key(key: KeyFile) -> Any:
    serialization, ed25519 = _cryptography()
    require_apart(Path(key))
    with os_errors("reading the private key"), Path(key).open("rb") as file:
        require_private(key, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        content = file.read()
    try:
        private = serialization.load_pem_private_key(content, password=None)
    except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm: it has no class for all
        raise ConfigError(f"{key} is no Ed25519 private key in PEM without a passphrase: {error}") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{key} is no Ed25519 private key but a {type(private).__name__}")
    return private


def _public_key(key: KeyFile) -> Any:
    serialization, ed25519 = _cryptography()
    with os_errors("reading the public key"):
        content = Path(key).read_bytes()
    try:
        public = serialization.load_pem_public_key(content)
    except Exception as error:
        raise ConfigError(f"{key} is no Ed25519 public key in PEM: {error}") from error
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{key} is no Ed25519 public key but a {type(public).__name__}")
    return public


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigError(_NO_CRYPTOGRAPHY) from error
    return serialization, ed25519
