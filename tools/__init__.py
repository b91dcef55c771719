"""The command line: one command is one file is one function that returns a report."""

if __name__ != "eventstore.tools":
    raise ImportError(f"import this package as eventstore.tools, not as {__name__}")
