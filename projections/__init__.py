"""Events become states: pure folds over a log."""

if __name__ != "eventstore.projections":
    raise ImportError(f"import this package as eventstore.projections, not as {__name__}")
