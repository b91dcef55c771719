"""Engines below the store, contracts above it, neighbours beside it."""

if __name__ != "eventstore.adapters":
    raise ImportError(f"import this package as eventstore.adapters, not as {__name__}")
