"""Which contenders meet, and what we want to see: the goals of the project, row by row."""

from __future__ import annotations

from tests.bench import bare, groups, ours, peers, workers
from tests.bench.measure import Against, Goal, Row

ROWS: tuple[Row, ...] = (
    Row(
        name="single",
        work="durable `write_value`, one event a call",
        unit="/s",
        ours=ours.Single,
        against=(
            Against(peers.RawSingle, Goal(">=", 0.90)),
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
            Against(peers.RawBatch, Goal(">=", 0.40)),
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
        long=True,
    ),
    Row(
        name="verify",
        work="`verify`, every checksum and link, one core",
        unit="/s",
        ours=ours.Verify,
        against=(Against(ours.LeanSelect, Goal(">=", 0.15)),),
    ),
    Row(
        name="verify-two",
        work="`verify`, every checksum and link, two processes",
        unit="/s",
        ours=ours.VerifyByTwo,
        against=(Against(ours.LeanSelect, Goal(">=", 0.3)),),
    ),
    Row(
        name="scan",
        work="scan of a domain, `events()`",
        unit="/s",
        ours=ours.Scan,
        against=(Against(peers.RawScan), Against(peers.EventSourcingScan, Goal(">=", 3.0))),
    ),
    Row(
        name="open",
        work="open 100,000 events of 10,000 keys, read one value",
        unit="ms",
        ours=ours.Open,
        against=(Against(None, Goal("<=", 20.0)), Against(ours.OpenWithout)),
    ),
    Row(
        name="open-large",
        work="the same with 1,000,000 events",
        unit="ms",
        ours=ours.OpenLarge,
        against=(Against(None, Goal("<=", 20.0)), Against(ours.Open, Goal("<=", 2.0))),
        long=True,
    ),
    Row(
        name="seal",
        work="seal: time writers wait, 100,000 events of 10,000 keys",
        unit="ms",
        ours=ours.Seal,
        against=(Against(None, Goal("<=", 500.0)),),
    ),
    Row(
        name="seal-wide",
        work="the same with 300,000 events of as many keys",
        unit="ms",
        ours=ours.SealWide,
        against=(Against(None, Goal("<=", 3_000.0)),),
        long=True,
    ),
    Row(
        name="seal-bytes",
        work="bytes a key of the live file after a seal",
        unit="B",
        ours=ours.SealedBytes,
        against=(Against(None),),
        counted=True,
    ),
    Row(
        name="as-of",
        work="all keys as of the middle of 100,000 events, through sealed files",
        unit="ms",
        ours=ours.AsOfSealed,
        against=(Against(ours.AsOf),),
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
        long=True,
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
)
"""Rows that are `long` run when named or asked for with --long."""
