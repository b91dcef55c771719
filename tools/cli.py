"""The command `eventstore`: a command's page is the docstring of its file, its options are words of the library.

Each imports its file when it runs: all of them together take longer to import than most take to run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from eventstore.model import DURABILITIES
from eventstore.tools.arguments import Count, NamedPath, Seconds, as_of, expected_of, key_of, moment_of, prefix_of, schema_of, value_of
from eventstore.tools.outcome import OK, USAGE, Commands, show, show_each
from eventstore.tools.terminal import escape, progress_on, to_json, width_of

if TYPE_CHECKING:
    from eventstore.rules import Unchanged
    from eventstore.tools.put import WriteOptions
    from eventstore.tools.serve import Listening

_Command = TypeVar("_Command", bound=Callable[..., Any])

_STORE = click.argument("store", metavar="STORE", type=NamedPath())
_DOMAIN = click.argument("domain", metavar="DOMAIN")
_ANY_DOMAIN = click.argument("domain", metavar="[DOMAIN]", required=False)
_KEY = click.argument("key", metavar="KEY")
_PREFIX = click.argument("prefix", metavar="[PREFIX]", required=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, also for an error on stderr.")
_READ_ONLY = click.option("--read-only", is_flag=True, help="Change nothing; reads damaged stores and read-only media, too.")
_TAKE_OVER = click.option("--take-over", is_flag=True, help="Also in archives in which other stores, or copies of this one, put files.")
_ARCHIVE = click.option(
    "--archive",
    "archives",
    multiple=True,
    type=NamedPath(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where sealed files were moved to; may be repeated.",
)
_LIMIT = click.option("--limit", type=Count(min=0), metavar="N", help="At most N.")
_REVERSE = click.option("--reverse", is_flag=True, help="Turn the order around.")


def _written(command: _Command) -> _Command:
    """What can be said about any write."""
    options = (
        click.option("--when", metavar="TIME", help="Your own time for it, RFC 3339."),
        click.option("--expected", metavar="absent|present|POSITION", help="Write only if the key is that now."),
        click.option("--event-id", metavar="ID", help="Names this call for ever: given again, it writes nothing."),
        click.option("--actor", help="Who writes."),
        click.option("--reason", help="Why."),
        click.option("--correlation-id", metavar="ID", help="What it belongs to."),
        click.option("--causation-id", metavar="ID", help="What caused it."),
        click.option("--run-id", metavar="ID", help="The run that writes."),
        click.option("--type", help="The event's own name, such as position.opened."),
        click.option("--schema", help="The version of the value's shape; digits are a number."),
        click.option("--tag", "tags", multiple=True, help="A word to find it by; may be repeated."),
        click.option("--durability", type=click.Choice(DURABILITIES[1:]), help="What the answer promises; power is the default."),
        _JSON,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _options(said: dict[str, Any]) -> WriteOptions:
    """The options of _written() as the library takes them; those not given are left out."""
    given = {name: value for name, value in said.items() if value not in (None, ())}
    for name, parse in (("when", moment_of), ("expected", expected_of), ("schema", schema_of), ("tags", list)):
        if name in given:
            given[name] = parse(given[name])
    return cast("WriteOptions", given)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            click.echo(f"eventstore-kit {metadata.version('eventstore-kit')}")
        except metadata.PackageNotFoundError:
            click.echo("eventstore-kit, not installed")
        context.exit()


@click.group("eventstore", cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
@click.pass_context
def cli(context: click.Context) -> int:
    """An event-sourced state store on an append-only log.

    STORE is a folder. A KEY is a plain string or a JSON array. Results go to stdout, progress and errors to stderr.

    Exit codes: 0 all is well; 1 no, or damage was found; 2 it could not be judged (missing, locked, unreadable); 3 the
    command line is wrong.

    \b
    Example:
      eventstore put data notes hello '{"a": 1}'
      eventstore get data notes hello
      eventstore log data notes -p
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return USAGE
    return OK


@cli.command("init")
@_STORE
@_JSON
def _init(store: str, as_json: bool) -> int:
    from eventstore.tools import init

    return show(init.init(store), init.render, as_json)


@cli.command("put")
@_STORE
@_DOMAIN
@_KEY
@click.argument("value", metavar="VALUE")
@click.option("--unchanged", type=click.Choice(["append", "skip"]), default="append", help="If the key holds just this value and time.")
@_written
def _put(store: str, domain: str, key: str, value: str, unchanged: Unchanged, as_json: bool, **said: Any) -> int:
    from eventstore.tools import put

    report = put.put(store, domain, key_of(key), value_of(value), unchanged=unchanged, options=_options(said))
    return show(report, put.render, as_json)


@cli.command("get")
@_STORE
@_DOMAIN
@_KEY
@_READ_ONLY
@_JSON
def _get(store: str, domain: str, key: str, read_only: bool, as_json: bool) -> int:
    from eventstore.tools import get

    report = get.get(store, domain, key_of(key), read_only=read_only)
    if as_json or sys.stdout.isatty():
        return show(report, get.render, as_json)
    sys.stdout.buffer.write(bytes(report.value) + b"\n")
    sys.stdout.buffer.flush()
    return OK


@cli.command("rm")
@_STORE
@_DOMAIN
@_KEY
@_written
def _rm(store: str, domain: str, key: str, as_json: bool, **said: Any) -> int:
    from eventstore.tools import rm

    return show(rm.rm(store, domain, key_of(key), options=_options(said)), rm.render, as_json)


@cli.command("redact")
@_STORE
@_DOMAIN
@click.argument("key", metavar="[KEY]", required=False)
@click.option("--prefix", is_flag=True, help="KEY is the beginning of keys: erase those of all of them.")
@click.option("--position", "positions", type=Count(min=1), multiple=True, metavar="N", help="Only what was written there.")
@click.option("--reason", required=True, help="Why; it stays on record.")
@click.option("--actor", help="Who erases; it stays on record.")
@click.option("--dry-run", is_flag=True, help="Only say what would be erased.")
@_TAKE_OVER
@_ARCHIVE
@_JSON
def _redact(store: str, domain: str, key: str | None, prefix: bool, positions: tuple[int, ...], as_json: bool, **options: Any) -> int:
    from eventstore.tools import redact

    if (key is None) == (not positions) or (prefix and key is None):
        raise click.UsageError("name a KEY, or the positions: --position N")
    if positions:
        report = redact.redact(store, domain, positions=positions, **options)
    elif prefix:
        report = redact.redact(store, domain, prefix=prefix_of(key) or (), **options)
    else:
        report = redact.redact(store, domain, key_of(key or ""), **options)
    return show(report, redact.render, as_json)


@cli.command("shred")
@_STORE
@click.argument("subject", metavar="SUBJECT")
@click.option("--keys", type=NamedPath(path_type=Path), metavar="FILE", help="The key file (else EVENTSTORE_KEYS).")
@click.option("--reason", required=True, help="Why; it stays on record.")
@click.option("--actor", help="Who destroys; it stays on record.")
@_TAKE_OVER
@_ARCHIVE
@_JSON
def _shred(store: str, subject: str, as_json: bool, **options: Any) -> int:
    from eventstore.tools import shred

    return show(shred.shred(store, subject, **options), shred.render, as_json)


@cli.command("ls")
@_STORE
@_ANY_DOMAIN
@_PREFIX
@click.option("-l", "long", is_flag=True, help="With the position and the time of each key's value.")
@_READ_ONLY
@_JSON
def _ls(store: str, domain: str | None, prefix: str | None, long: bool, read_only: bool, as_json: bool) -> int:
    from eventstore.tools import ls

    if domain is None:
        return show_each(ls.ls(store, read_only=read_only), ls.render, as_json)
    keys = ls.ls_keys(store, domain, prefix_of(prefix), read_only=read_only)
    return show_each(keys, lambda lines, paint: ls.render_keys(lines, long=long), as_json)


@cli.command("log")
@_STORE
@_ANY_DOMAIN
@click.option("-p", "values", is_flag=True, help="Show values.")
@click.option("--since", metavar="TIME", help="Only what was recorded then or later, RFC 3339.")
@click.option("--after", type=Count(min=0), metavar="POSITION", help="Only what follows this position.")
@click.option("--key", metavar="KEY", help="Only events of this key.")
@_LIMIT
@_REVERSE
@_READ_ONLY
@_ARCHIVE
@_JSON
def _log(store: str, domain: str | None, since: str | None, key: str | None, as_json: bool, **options: Any) -> int:
    from eventstore.tools import log

    if domain is None and (key is not None or options["after"]):
        raise click.UsageError("--key and --after need a DOMAIN: keys and positions are a domain's own")
    since_us = None if since is None else moment_of(since)
    lines = log.log(store, domain, key=None if key is None else key_of(key), since_us=since_us, **options)
    width = width_of(sys.stdout)
    return show_each(
        lines,
        lambda lines, paint: (text for line in lines for text in log.render(line, paint, width, with_domain=domain is None)),
        as_json,
    )


@cli.command("history")
@_STORE
@_DOMAIN
@_KEY
@_LIMIT
@_REVERSE
@_READ_ONLY
@_ARCHIVE
@_JSON
def _history(store: str, domain: str, key: str, as_json: bool, **options: Any) -> int:
    from eventstore.tools import history

    width = width_of(sys.stdout)
    versions = history.history(store, domain, key_of(key), **options)
    return show_each(versions, lambda lines, paint: (text for line in lines for text in history.render(line, paint, width)), as_json)


@cli.command("state")
@_STORE
@_ANY_DOMAIN
@_PREFIX
@click.option("--as-of", "cut", metavar="TIME|POSITION", help="The moment that is asked for.")
@_READ_ONLY
@_ARCHIVE
@_JSON
def _state(store: str, domain: str | None, prefix: str | None, cut: str | None, as_json: bool, **options: Any) -> int:
    from eventstore.tools import state

    width = width_of(sys.stdout)
    lines = state.state(store, domain, as_of=as_of(cut), prefix=prefix_of(prefix), **options)
    return show_each(lines, lambda lines, paint: state.render(lines, width, with_domain=domain is None), as_json)


@cli.command("verify")
@_STORE
@_ANY_DOMAIN
@click.option("--processes", type=Count(min=1), metavar="N", help="Share a long log among N processes (default: one a core).")
@click.option("--anchor", type=NamedPath(path_type=Path), metavar="FILE", help="Hold the store against this anchor, too.")
@click.option("--public-key", type=NamedPath(path_type=Path), metavar="KEY", help="Who must have signed the anchor.")
@_ARCHIVE
@_JSON
def _verify(store: str, domain: str | None, as_json: bool, **options: Any) -> int:
    from eventstore.tools import verify

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = verify.verify(store, domain, progress=progress, **options)
    return show(report, verify.render, as_json)


@cli.command("anchor")
@_STORE
@click.option("-o", "--output", type=NamedPath(path_type=Path), metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--private-key", type=NamedPath(path_type=Path), metavar="PEM", help="Sign it with this private key.")
@click.option("--no-roots", "roots", is_flag=True, default=True, flag_value=False, help="At once, for `verify` alone.")
@_READ_ONLY
@_ARCHIVE
@_JSON
def _anchor(store: str, output: Path | None, private_key: Path | None, as_json: bool, **options: Any) -> int:
    from eventstore.tools import anchor

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = anchor.anchor(store, output, private_key, progress=progress, **options)
    # The line to keep is JSON already, and must be kept as it is.
    return show(report, anchor.render, as_json and output is not None)


@cli.command("bundle")
@click.argument("store", metavar="STORE", required=False, type=NamedPath())
@click.argument("domain", metavar="DOMAIN", required=False)
@click.option("--key", metavar="KEY", help="All events of this key.")
@click.option("--position", "positions", type=Count(min=1), multiple=True, metavar="N", help="This event; may be repeated.")
@click.option("--correlation-id", metavar="ID", help="All events that belong to this.")
@click.option("--after", type=Count(min=0), metavar="POSITION", help="All events that follow this position.")
@click.option("--until", type=Count(min=1), metavar="POSITION", help="All events up to this position.")
@click.option("--since", type=NamedPath(path_type=Path), metavar="FILE", help="Show that the log continues this older anchor.")
@click.option("--private-key", type=NamedPath(path_type=Path), metavar="PEM", help="Sign it with this private key.")
@click.option("-o", "--output", type=NamedPath(path_type=Path), metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--verifier", is_flag=True, help="Print the program that checks a bundle, and nothing else.")
@_READ_ONLY
@_ARCHIVE
@_JSON
def _bundle(
    store: str | None, domain: str | None, output: Path | None, key: str | None, verifier: bool, as_json: bool, **options: Any
) -> int:
    from eventstore.tools import bundle

    if verifier:
        if as_json:
            raise click.UsageError("--verifier prints a program, which is no JSON: leave --json out")
        sys.stdout.write(bundle.verifier())
        return OK
    if store is None or domain is None:
        raise click.UsageError("a STORE and a DOMAIN are needed, but for --verifier")
    options["positions"] = options["positions"] or None
    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = bundle.bundle(store, domain, output, key=None if key is None else key_of(key), progress=progress, **options)
    return show(report, bundle.render, as_json and output is not None)


@cli.command("client")
@click.option("--json", "as_json", is_flag=True, help="Print the contracts alone, a JSON object a line.")
def _client(as_json: bool) -> int:
    from eventstore.tools import client

    if as_json:
        return show_each(client.contracts(), lambda rows, paint: (), as_json)
    sys.stdout.write(client.client())
    return OK


@cli.command("compact")
@_STORE
@_ANY_DOMAIN
@click.option("--before", metavar="TIME", help="Only those whose live file begins before then, RFC 3339.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would be sealed.")
@_JSON
def _compact(store: str, domain: str | None, before: str | None, dry_run: bool, as_json: bool) -> int:
    from eventstore.tools import compact

    before_us = None if before is None else moment_of(before)
    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = compact.compact(store, domain, before_us=before_us, dry_run=dry_run, progress=progress)
    return show(report, compact.render, as_json)


@cli.command("archive")
@_STORE
@_ANY_DOMAIN
@click.option("--before", metavar="TIME|POSITION", help="Only files whose events all come before that.")
@click.option("--to", type=NamedPath(path_type=Path), required=True, metavar="DIR", help="Where they go; made if it is missing.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would be moved.")
@_JSON
def _archive(store: str, domain: str | None, before: str | None, to: Path, dry_run: bool, as_json: bool) -> int:
    from eventstore.tools import archive

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = archive.archive(store, domain, to=to, before=as_of(before), dry_run=dry_run, progress=progress)
    return show(report, archive.render, as_json)


@cli.command("retention")
@click.argument("action", metavar="plan|apply", type=click.Choice(["plan", "apply"]))
@_STORE
@_ANY_DOMAIN
@click.option("--keep-days", type=Count(0, 10**6), metavar="N", help="Keep what was recorded in the last N days.")
@click.option("--keep-events", type=Count(0, 10**12), metavar="N", help="Keep at least the last N events of a domain.")
@click.option("--to", type=NamedPath(path_type=Path), metavar="DIR", help="Move files to DIR.")
@click.option("--delete", is_flag=True, help="Delete files for good, also those in archives.")
@click.option("--yes", is_flag=True, help="Really delete.")
@_TAKE_OVER
@_JSON
def _retention(
    action: str, store: str, domain: str | None, keep_days: int | None, keep_events: int | None, as_json: bool, **options: Any
) -> int:
    from eventstore.tools import retention

    policy = retention.policy_of(keep_days, keep_events)
    if action == "plan":
        return show(retention.plan(store, domain, policy=policy, **options), retention.render_plan, as_json)
    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = retention.apply(store, domain, policy=policy, progress=progress, **options)
    return show(report, retention.render, as_json)


@cli.command("accept")
@_STORE
@_DOMAIN
@_JSON
def _accept(store: str, domain: str, as_json: bool) -> int:
    from eventstore.tools import accept

    return show(accept.accept(store, domain), accept.render, as_json)


@cli.command("backup")
@_STORE
@click.argument("to", metavar="TO", type=NamedPath())
@_JSON
def _backup(store: str, to: str, as_json: bool) -> int:
    from eventstore.tools import backup

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = backup.backup(store, to, progress=progress)
    return show(report, backup.render, as_json)


@cli.command("restore")
@click.argument("backup", metavar="BACKUP", type=NamedPath())
@_STORE
@_JSON
def _restore(backup: str, store: str, as_json: bool) -> int:
    from eventstore.tools import restore

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = restore.restore(backup, store, progress=progress)
    return show(report, restore.render, as_json)


@cli.command("salvage")
@_STORE
@click.argument("out", metavar="OUT", type=NamedPath())
@_ANY_DOMAIN
@click.option("--unproven", is_flag=True, help="Write unproven and aside events, too, marked in meta.origin.")
@_ARCHIVE
@_JSON
def _salvage(store: str, out: str, domain: str | None, unproven: bool, archives: tuple[Path, ...], as_json: bool) -> int:
    from eventstore.tools import salvage

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = salvage.salvage(store, out, domain, unproven=unproven, archives=archives, progress=progress)
    return show(report, salvage.render, as_json)


@cli.command("import")
@click.argument("source", metavar="SOURCE", type=NamedPath())
@_STORE
@click.option("--domain", metavar="DOMAIN", help="Of JSONL, take only this domain; of a folder, put everything into it.")
@_ARCHIVE
@click.option("--contracts", is_flag=True, help="SOURCE is a tree of the framework's JSON files: take its records as records.")
@_JSON
def _import(source: str, store: str, domain: str | None, archives: tuple[Path, ...], contracts: bool, as_json: bool) -> int:
    from eventstore.tools import import_

    if contracts and domain is not None:
        raise click.UsageError("--contracts says by itself which domain a record belongs to: leave --domain out")
    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = import_.import_(source, store, domain=domain, archives=archives, contracts=contracts, progress=progress)
    return show(report, import_.render, as_json)


@cli.command("shadow")
@click.argument("folder", metavar="DIR", type=NamedPath(path_type=Path))
@_STORE
@click.option("--once/--follow", "once", default=False, help="Record what differs, and end; or go on (the default).")
@click.option("--domain", metavar="DOMAIN", help="Put everything into this domain.")
@click.option("--rescan", "rescan_s", type=Seconds(min=0.1), default=60, metavar="SECONDS", help="How often to look at every file (60).")
@click.option("--allow-empty", is_flag=True, help="A folder without any document counts, too: all that was there was removed.")
@_JSON
def _shadow(folder: Path, store: str, as_json: bool, **options: Any) -> int:
    from eventstore.tools import shadow

    report = shadow.shadow(folder, store, tell=None if as_json else lambda text: click.echo(escape(text), err=True), **options)
    return show(report, shadow.render, as_json)


@cli.command("export")
@_STORE
@click.argument("domains", metavar="[DOMAIN]...", nargs=-1)
@click.option("-o", "--output", type=NamedPath(path_type=Path), metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--contracts", is_flag=True, help="Make the folder of -o a tree of the framework's JSON files instead.")
@click.option("--sqlite", "database", type=NamedPath(path_type=Path), metavar="FILE", help="Make FILE a plain SQLite database instead.")
@click.option("--search", is_flag=True, help="In the database, a full-text index of keys and values: table event_fts.")
@_READ_ONLY
@_ARCHIVE
@_JSON
def _export(
    store: str,
    domains: tuple[str, ...],
    output: Path | None,
    contracts: bool,
    database: Path | None,
    search: bool,
    as_json: bool,
    **options: Any,
) -> int:
    from eventstore.tools import export

    if contracts:
        from eventstore.tools import export_contracts

        if output is None or database is not None:
            raise click.UsageError("--contracts writes a tree of files: name its folder with -o, and nothing else")
        with progress_on(sys.stderr, wanted=not as_json) as progress:
            tree = export_contracts.export_contracts(store, domains, output, progress=progress, **options)
        return show(tree, export_contracts.render, as_json)
    if database is not None:
        from eventstore.tools import export_tables

        if output is not None:
            raise click.UsageError("-o writes JSONL, --sqlite a database: give one of them")
        with progress_on(sys.stderr, wanted=not as_json) as progress:
            tables = export_tables.export_tables(store, domains, database, search=search, progress=progress, **options)
        return show(tables, export_tables.render, as_json)
    if search:
        raise click.UsageError("--search makes an index in the database of --sqlite")
    if output is None or str(output) == "-":
        export.export(store, domains, export.Shown(sys.stdout) if sys.stdout.isatty() else sys.stdout.buffer, **options)
        sys.stdout.flush()
        return OK
    with progress_on(sys.stderr, wanted=not as_json) as progress, export.whole_file(output) as file:
        report = export.export(store, domains, file, str(output), progress=progress, **options)
    return show(report, export.render, as_json)


@cli.command("doctor")
@click.argument("store", metavar="[STORE]", required=False, type=NamedPath())
@click.option("--fix", "fixing", is_flag=True, help="Put right what safely can be, and name it.")
@_JSON
def _doctor(store: str | None, fixing: bool, as_json: bool) -> int:
    from eventstore.tools import doctor

    return show(doctor.doctor(store, fixing=fixing), doctor.render, as_json)


@cli.command("serve")
@_STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=Count(0, 65_535), metavar="N", help="The port; 0 is any free one (7410, or none beside --unix).")
@click.option("--unix", type=NamedPath(path_type=Path), metavar="PATH", help="Listen on a unix socket there.")
@click.option("--token-file", type=NamedPath(path_type=Path), metavar="FILE", help="What callers must know (else EVENTSTORE_TOKEN).")
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A name this server is called by; may be repeated.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine, in the clear; needs a token all the same.")
@click.option("--durability", type=click.Choice(DURABILITIES[1:]), help="What an answer promises; power is the default.")
@click.option("--actor", help="Who writes, in every event.")
@_JSON
def _serve(store: str, as_json: bool, **options: Any) -> int:
    from eventstore.tools import serve

    def ready(where: Listening) -> None:
        click.echo(to_json(where) if as_json else f"listening on {' and '.join(where.listening)}")

    return show(serve.serve(store, serve.ServeOptions(**options), ready), serve.render, as_json)


@cli.command("demo")
@click.option("--folder", type=NamedPath(path_type=Path), help="Where to make the store, which is kept; it must be missing or empty.")
@_JSON
def _demo(folder: Path | None, as_json: bool) -> int:
    from eventstore.tools import demo

    with progress_on(sys.stderr, wanted=not as_json) as progress:
        report = demo.demo(folder, progress=progress)
    return show(report, demo.render, as_json)


def main() -> None:
    """The console script."""
    cli()
