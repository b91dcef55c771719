"""Which contenders meet, and what we want to see: the goals of the project, row by row."""

from __future__ import annotations

from tests.bench import bare, candles, contracts, groups, levels, ours, peers, served, workers
from tests.bench.measure import Against, Goal, Row

ROWS: tuple[Row, ...] = (
    Row(
        name="single",
        work="durable `write_value`, one event a call",
        unit="/s",
        ours=ours.Single,
        against=(
            Against(peers.RawSingle, Goal(">=", 0.95), Goal(">=", 0.90)),
            Against(bare.Single),
            Against(peers.JsonFileSingle, Goal(">=", 2.3)),
            Against(peers.EventSourcingSingle),
            Against(peers.DiskCacheSingle),
            Against(peers.DiskCacheSingleFull),
            Against(peers.LmdbSingle),
        ),
    ),
    Row(
        name="lone",
        work="a lone thread, with the queue of group commit",
        unit="/s",
        ours=groups.OneByOne,
        against=(Against(groups.Drain, Goal(">=", 0.98)),),
    ),
    *(
        Row(
            name=f"{contender.name.split()[1]}-{contender.name.split()[0]}",
            work=f"group commit, {contender.name}, one event a call",
            unit="/s",
            ours=contender,
            against=(Against(groups.OneByOne, Goal(">=", goal)),),
        )
        for contender, goal in ((groups.Threads8, 2.2), (groups.Threads64, 5.0), (groups.Tasks64, 15.0), (groups.Tasks512, 30.0))
    ),
    Row(
        name="batch",
        work="`write_values`, 1,000 a batch, from dicts, validated",
        unit="/s",
        ours=ours.Batch,
        against=(
            Against(peers.RawBatch, Goal(">=", 0.45), Goal(">=", 0.40)),
            Against(bare.Batch),
            Against(peers.EventSourcingBatch),
            Against(peers.DiskCacheBatch),
            Against(peers.LmdbBatch),
        ),
    ),
    Row(
        name="batch-late",
        work="the same with event ids, behind 1,000,000 events",
        unit="/s",
        ours=ours.BatchLate,
        against=(Against(peers.RawBatchLate, Goal(">=", 0.38)),),
    ),
    Row(
        name="log",
        work="log level: sealed events, 1,000 an append",
        unit="/s",
        ours=levels.SealedAppend,
        against=(
            Against(levels.RecorderAppend, Goal(">=", 1.2)),
            Against(levels.AettAppend, Goal(">=", 2.0)),
            Against(levels.EventSourcePyAppend, Goal(">=", 25.0)),
        ),
        rounds=5,
    ),
    Row(
        name="application",
        work="application level: one object a call, durable",
        unit="/s",
        ours=levels.Application,
        against=(Against(levels.EventSourcingApplication, Goal(">=", 3.0)),),
    ),
    *(
        Row(
            name=f"verify{suffix}",
            work=f"`verify`, every checksum and link, {events} events, one core",
            unit="/s",
            ours=contender,
            against=(Against(lean, Goal(">=", 0.2), Goal(">=", 0.15)),),
            rounds=rounds,
            long=suffix == "-huge",
        )
        for suffix, events, contender, lean, rounds in (
            ("", "100,000", ours.Verify, ours.LeanSelect, None),
            ("-large", "1,000,000", ours.VerifyLarge, ours.LeanSelectLarge, 5),
            ("-huge", "10,000,000", ours.VerifyHuge, ours.LeanSelectHuge, 5),
        )
    ),
    *(
        Row(
            name=f"verify-two{suffix}",
            work=f"the same, {events} events, two processes",
            unit="/s",
            ours=contender,
            against=(Against(lean, Goal(">=", 0.36)),),
            rounds=rounds,
            long=suffix == "-huge",
        )
        for suffix, events, contender, lean, rounds in (
            ("", "100,000", ours.VerifyByTwo, ours.LeanSelect, None),
            ("-large", "1,000,000", ours.VerifyLargeByTwo, ours.LeanSelectLarge, 5),
            ("-huge", "10,000,000", ours.VerifyHugeByTwo, ours.LeanSelectHuge, 5),
        )
    ),
    Row(
        name="scan",
        work="scan of a domain, `events()`, each proven, 100,000 events",
        unit="/s",
        ours=ours.Scan,
        against=(Against(ours.RawScan), Against(peers.EventSourcingScan, Goal(">=", 1.4))),
    ),
    Row(
        name="scan-large",
        work="scan, each proven, 1,000,000 events",
        unit="/s",
        ours=ours.ScanLarge,
        against=(Against(ours.RawScanLarge),),
        rounds=5,
    ),
    Row(
        name="scan-huge",
        work="scan, each proven, 10,000,000 events",
        unit="/s",
        ours=ours.ScanHuge,
        against=(Against(ours.RawScanHuge),),
        rounds=5,
        long=True,
    ),
    Row(
        name="open",
        work="open 100,000 events of 10,000 keys, read one value",
        unit="ms",
        ours=ours.Open,
        against=(Against(None, Goal("<=", 20.0)), Against(ours.OpenSmall, Goal("<=", 2.0)), Against(ours.OpenWithout)),
    ),
    *(
        Row(
            name=f"open{suffix}",
            work=f"the same with {events} events",
            unit="ms",
            ours=contender,
            against=(Against(None, Goal("<=", 20.0)), Against(ours.OpenSmall, Goal("<=", 2.0))),
            long=suffix == "-huge",
        )
        for suffix, events, contender in (("-large", "1,000,000", ours.OpenLarge), ("-huge", "10,000,000", ours.OpenHuge))
    ),
    *(
        Row(
            name=f"seal{suffix}",
            work=f"seal beside a busy writer: its longest wait, {events}",
            unit="ms",
            ours=contender,
            against=(Against(None, Goal("<=", bound)),),
            rounds=5,
            long=suffix == "-huge",
        )
        for suffix, events, contender, bound in (
            ("", "100,000 events of 10,000 keys", ours.Seal, 500.0),
            ("-large", "1,000,000 events of 10,000 keys", ours.SealLarge, 500.0),
            ("-wide", "1,000,000 events of 300,000 keys", ours.SealWide, 3_000.0),
            ("-huge", "10,000,000 events of 10,000 keys", ours.SealHuge, 500.0),
        )
    ),
    *(
        Row(
            name=f"seal-bytes{suffix}",
            work=f"bytes a key of the live file after a seal, {events} events of 10,000 keys",
            unit="B",
            ours=contender,
            against=(Against(None),),
            counted=True,
            long=suffix == "-huge",
        )
        for suffix, events, contender in (
            ("", "100,000", ours.SealedBytes),
            ("-large", "1,000,000", ours.SealedBytesLarge),
            ("-huge", "10,000,000", ours.SealedBytesHuge),
        )
    ),
    Row(
        name="as-of",
        work="all 10,000 keys as of half-way between two pointer files, 100,000 events",
        unit="ms",
        ours=ours.AsOfNear,
        against=(Against(None, Goal("<=", 50.0)), Against(ours.AsOf)),
    ),
    *(
        Row(
            name=f"as-of{suffix}",
            work=f"the same, {events} events",
            unit="ms",
            ours=contender,
            against=(Against(None, Goal("<=", 50.0)),),
            long=suffix == "-huge",
        )
        for suffix, events, contender in (("-large", "1,000,000", ours.AsOfNearLarge), ("-huge", "10,000,000", ours.AsOfNearHuge))
    ),
    *(
        Row(
            name=f"as-of-sealed{suffix}",
            work=f"all keys as of the middle of {events} events, through sealed files",
            unit="ms",
            ours=contender,
            against=(Against(one_file),),
            rounds=rounds,
            long=suffix == "-huge",
        )
        for suffix, events, contender, one_file, rounds in (
            ("", "100,000", ours.AsOfSealed, ours.AsOfMiddle, None),
            ("-large", "1,000,000", ours.AsOfSealedLarge, ours.AsOfMiddleLarge, 5),
            ("-huge", "10,000,000", ours.AsOfSealedHuge, ours.AsOfMiddleHuge, 5),
        )
    ),
    Row(
        name="bytes",
        work="bytes an event on disk",
        unit="B",
        ours=ours.Bytes,
        against=(Against(ours.BytesLean, Goal("<=", 66.0)),),
        compare="difference",
        counted=True,
    ),
    Row(
        name="candles-write",
        work="candles, 1,000 a call: write",
        unit="/s",
        ours=candles.Written,
        against=(Against(candles.FilesWritten, Goal(">=", 700.0)), Against(candles.Table, Goal(">=", 1.2))),
    ),
    Row(
        name="candles-lone",
        work="a call of one candle, none waiting beside it",
        unit="ms",
        ours=candles.Lone,
        against=(Against(candles.Whole),),
    ),
    Row(
        name="candles-tasks",
        work="64 tasks of one event loop, one candle of one context a call",
        unit="/s",
        ours=candles.Tasks,
        against=(Against(candles.OneTask),),
    ),
    Row(
        name="candles-bytes",
        work="bytes a candle on disk, 1,000 a call",
        unit="B",
        ours=candles.OnDisk,
        against=(Against(candles.FilesOnDisk, Goal("<=", 1 / 60)), Against(candles.TableOnDisk)),
        counted=True,
    ),
    Row(
        name="candles-bytes-lone",
        work="bytes a candle on disk, one a call",
        unit="B",
        ours=candles.LoneOnDisk,
        against=(Against(candles.WholeOnDisk),),
        counted=True,
    ),
    Row(
        name="candles-memory",
        work="bytes a candle in memory",
        unit="B",
        ours=candles.InMemory,
        against=(Against(None, Goal("<=", 64.0)),),
        counted=True,
    ),
    Row(
        name="contracts",
        work="a recorded session, asked of the contracts in process",
        unit="/s",
        ours=contracts.InProcess,
        against=(Against(contracts.OnFiles, Goal(">=", 3.0)), Against(contracts.NotKept)),
        rounds=5,
    ),
    *(
        Row(
            name=f"http{suffix}",
            work=f"the same session over HTTP, {connections}",
            unit="/s",
            ours=contender,
            against=(Against(from_memory, Goal(">=", 0.7)),),
            rounds=5,
        )
        for suffix, connections, contender, from_memory in (
            ("", "one connection", served.Served, served.ServedFromMemory),
            ("-64", "64 connections", served.Served64, served.Served64FromMemory),
        )
    ),
    Row(
        name="rewritten",
        work="events appended, of the list items that the engine rewrites",
        unit="%",
        ours=contracts.Rewritten,
        against=(Against(None, Goal("<=", 2.0)),),
        counted=True,
    ),
    Row(
        name="a-day",
        work="a day of the recorded session",
        unit="MB",
        ours=contracts.ADay,
        against=(Against(contracts.Rewriting),),
        counted=True,
    ),
    Row(
        name="domains",
        work="4 domains, 4 processes, 100 a batch",
        unit="/s",
        ours=workers.FourDomainsFourProcesses,
        against=(Against(workers.OneDomainOneProcess, Goal(">=", 1.9)),),
    ),
    Row(
        name="shared",
        work="1 domain, 4 processes, one event a call",
        unit="/s",
        ours=workers.OneDomainFourSingles,
        against=(Against(workers.OneDomainOneSingle),),
    ),
    Row(
        name="beside",
        work="a batch of 10,000 beside a busy single writer in another process",
        unit="ms",
        ours=workers.LargeBatchBeside,
        against=(Against(workers.LargeBatch, Goal("<=", 2.0)),),
    ),
    Row(
        name="memory",
        work="resident memory, 300,000 keys of 5 kB",
        unit="MB",
        ours=workers.OpenWide,
        against=(Against(None, Goal("<=", 500.0)),),
        counted=True,
    ),
    Row(
        name="read",
        work="current `read_value` in process, JSON decoded",
        unit="/s",
        ours=ours.Read,
        against=(
            Against(peers.LmdbRead, Goal(">=", 2.0)),
            Against(peers.LmdbReadFresh),
            Against(peers.DiskCacheRead, Goal(">=", 25.0)),
            Against(peers.EventSourcingRead, Goal(">=", 45.0)),
        ),
        from_memory=True,
    ),
    Row(
        name="candles-read",
        work="candles, 1,000 a call: read",
        unit="/s",
        ours=candles.Reads,
        against=(Against(candles.FilesRead, Goal(">=", 30.0)), Against(candles.TableRead, Goal(">=", 3.5))),
        from_memory=True,
    ),
)
"""Rows that are `long` run when named or asked for with --long."""
