"""The table as data: every measured figure, and the target of the mirror."""

from dataclasses import dataclass

from tests.bench.contestants import (
    ALONE,
    BASE,
    BEFORE,
    CP,
    CTR,
    DIRECT,
    DISTRIBUTION,
    DISTRIBUTION_3,
    FAST,
    ONE_WORKER,
    PROXY,
    REGISTRY,
    SKOPEO,
    STATIC,
    WITHOUT_RULES,
)


@dataclass(frozen=True)
class Target:
    """Target: at least or at most `value`, of the rival's figure in the same round or absolute."""

    word: str
    value: float
    rival: str = ""
    unit: str = ""

    def __str__(self) -> str:
        of = f" of {self.rival}" if self.rival else ""
        return f"{self.word} {self.value:,g}{of}{self.unit and ' ' + self.unit}"

    def reached(self, figure: float) -> bool:
        return figure >= self.value if self.word == "at least" else figure <= self.value


@dataclass(frozen=True)
class Row:
    """One line. `last` is the contestant in the column of the limit."""

    key: str
    work: str
    last: str = STATIC
    targets: tuple[Target, ...] = ()


def least(value: float, rival: str = "", unit: str = "") -> Target:
    return Target("at least", value, rival, unit)


def most(value: float, rival: str = "", unit: str = "") -> Target:
    return Target("at most", value, rival, unit)


# How the rows were measured, for readers who judge them.
NOTES = (
    "Server under test on one core; origin, CDN and load on another; all on loopback, without TLS "
    "unless the row says so. "
    "Medians of the rounds (lowest..highest); a ratio is the median of those within each round.",
    "The mirror and nginx proxy write an access log to a file, nginx static writes none; "
    "docker-registry is configured as Debian configures it.",
    "nginx proxy verifies no digest, asks for no token (it is given one), and knows no access rules.",
    "Clients let the kernel discard received bytes; every contestant's bytes are checked beside that.",
    "nginx static in small-fills is not cold: it shows the limit of the load itself.",
    "Where workers are compared, servers and load share all cores.",
    "Beside abuse, a warm request is due every 20 ms, and its time begins then; "
    "before is the mirror in the same round without the abuse. distribution has no quota.",
)

# Headers of range responses do not count, so "1.00" is 1 but for rounding.
ONCE = most(1.005)
FLAT = (least(0.95, STATIC),)
LEVEL = (least(0.9, PROXY),)
BETTER = (least(1, ONE_WORKER),)


def _beside(kind: str, work: str) -> tuple[Row, ...]:
    """Return the rows of one kind of abuse."""
    key = f"abuse-{kind}"
    return (
        Row(key, f"{work}: another client's warm 2 KiB blob, p99 ms", BEFORE, (most(50, unit="ms"),)),
        Row(f"{key}-cold", "same, its cold 6 MiB blob: time by that before", targets=(most(2),)),
        Row(f"{key}-rss", "same, growth of memory, MB", targets=(most(150, unit="MB"),)),
        Row(f"{key}-unanswered", "same, its requests that were not answered, %", targets=(most(0),)),
    )


def _carrying(kind: str, work: str) -> tuple[Row, ...]:
    """Return the rows of one direction of carrying images."""
    key = f"carry-{kind}"
    return (
        Row(key, f"{work}, 2 GiB, GB/s (cp: the file)", CP, (least(0.7, CP),)),
        Row(f"{key}-rss", "same, peak of memory, MB", targets=(most(100, unit="MB"),)),
        Row(f"{key}-skopeo", "same, beside skopeo copy, GB/s", SKOPEO, (least(1, SKOPEO),)),
        Row(f"{key}-ctr", "same, beside ctr images, GB/s", CTR, (least(1, CTR),)),
    )


ROWS = (
    Row("startup-version", "--version: processor s", targets=(most(0.3, BASE), most(0.2, unit="s"))),
    Row("startup-help", "--help: processor s", targets=(most(0.3, BASE), most(0.2, unit="s"))),
    Row("startup-ls", "ls: processor s", targets=(most(0.6, BASE), most(0.4, unit="s"))),
    Row("startup-check", "config check: processor s", targets=(most(0.6, BASE), most(0.4, unit="s"))),
    Row("startup-serve", "serve until it is ready: processor s", targets=(most(0.8, BASE),)),
    Row("startup-serve-wall", "same, s"),
    Row("startup-pss", "memory of an idle mirror: PSS MB", targets=(most(1, BASE), most(70, unit="MB"))),
    Row("warm-blob-1", "warm 100 MiB blob, 1 client, GB/s", targets=FLAT),
    Row("warm-blob-1-cpu", "same, server CPU s per GB"),
    Row("warm-blob-16", "warm 100 MiB blob, 16 clients, GB/s", targets=FLAT),
    Row("warm-blob-16-cpu", "same, server CPU s per GB"),
    Row("manifest-digest-1", "manifest by digest, 1 connection, req/s"),
    Row("manifest-digest-32", "same, 32 connections, req/s", targets=LEVEL),
    Row("manifest-digest-32-p99", "same, p99 ms"),
    Row("manifest-digest-32-cpu", "same, server CPU µs per request"),
    Row("manifest-digest-256", "same, 256 connections, req/s"),
    Row("manifest-tag-1", "manifest by tag, 1 connection, req/s"),
    Row("manifest-tag-32", "same, 32 connections, req/s", targets=LEVEL),
    Row("manifest-tag-32-p99", "same, p99 ms"),
    Row("manifest-tag-32-cpu", "same, server CPU µs per request"),
    Row("manifest-tag-256", "same, 256 connections, req/s"),
    Row("config-blob-32", "2 KiB config blob, 32 connections, req/s", targets=LEVEL),
    Row("config-blob-32-p99", "same, p99 ms"),
    Row("config-blob-32-cpu", "same, server CPU µs per request"),
    Row(
        "rules-small",
        "manifest by digest, 10,000 tokens in turn, 1,000 rules, 32 connections, req/s",
        WITHOUT_RULES,
        (least(0.9, WITHOUT_RULES),),
    ),
    Row("rules-small-p99", "same, p99 ms", WITHOUT_RULES),
    Row("rules-small-cpu", "same, server CPU µs per request", WITHOUT_RULES),
    Row(
        "ranges",
        "1 KiB anywhere in a warm 100 MiB blob, 16 connections, req/s",
        targets=(least(0.6, STATIC),),
    ),
    Row("ranges-p99", "same, p99 ms"),
    Row("ranges-cpu", "same, server CPU µs per request"),
    Row(
        "multi-ranges",
        "20 ranges of 50 kB each request, warm 100 MiB blob, 8 connections, req/s",
        targets=(least(0.5, STATIC),),
    ),
    Row("multi-ranges-cpu", "same, server CPU ms per request"),
    Row("tls-blob", "warm 100 MiB blob over TLS, 1 client, GB/s"),
    Row("tls-blob-cpu", "same, server CPU s per GB"),
    Row(
        "cold-gib-wall",
        "cold 1 GiB, unthrottled: wall s",
        DIRECT,
        (most(0.7, DISTRIBUTION), most(1.5, PROXY)),
    ),
    Row("cold-gib-first", "same, first byte ms", DIRECT, (most(3, unit="ms"),)),
    Row("cold-gib-cpu", "same, server CPU s per GB", DIRECT),
    Row("cold-gib-upstream", "same, upstream bytes / blob", DIRECT, (ONCE,)),
    Row(
        "cold-gib-tls-wall",
        "cold 1 GiB from an upstream that speaks TLS: wall s",
        DIRECT,
        (most(0.6, DISTRIBUTION_3), most(1.3, PROXY)),
    ),
    Row("cold-gib-tls-first", "same, first byte ms", DIRECT, (most(2, PROXY),)),
    Row(
        "cold-gib-tls-cpu",
        "same, server CPU s per GB",
        DIRECT,
        (most(0.65, DISTRIBUTION_3), most(0.6, BASE)),
    ),
    Row("cold-gib-tls-upstream", "same, upstream bytes / blob", DIRECT, (ONCE,)),
    Row("parallel-ranges", "cold 1 GiB over TLS in 32 parallel ranges of 8 MiB: s", PROXY),
    Row("parallel-ranges-upstream", "same, upstream bytes / blob", PROXY, (ONCE,)),
    Row("parallel-ranges-whole", "same blob by one plain GET: s", PROXY),
    Row(
        "herd-upstream",
        "herd: 50 clients, cold 100 MiB, 20 MB/s per connection: upstream bytes / blob",
        DIRECT,
        (ONCE,),
    ),
    Row("herd-last", "same, last client s (direct: one client)", DIRECT, (most(0.35, DIRECT),)),
    Row("herd-first", "same, first byte p50 s", DIRECT),
    Row(
        "slow-wan",
        "slow WAN, 6 layers, 226 MiB, 3 at a time, 4 MB/s per connection, 150 ms: cold s",
        DIRECT,
        (most(0.3, DIRECT),),
    ),
    Row("slow-wan-tag", "same, tag when warm, ms", DIRECT),
    Row(
        "many-images",
        "100 images of 8 layers, 3.5 GiB, each pulled by two of 20 clients, 3 layers at a time, "
        "4 MB/s per connection, 20 ms: last pull, s",
        DIRECT,
        (most(0.6, DIRECT),),
    ),
    Row("many-images-cpu", "same, server CPU s per GB", DIRECT),
    Row("many-images-upstream", "same, upstream bytes / blobs", DIRECT, (ONCE,)),
    Row(
        "two-sources", "slow WAN, 100 MiB, two sources, one stalls in mid-blob: s", ALONE, (most(1.2, ALONE),)
    ),
    Row(
        "lossy-source",
        "slow WAN, 100 MiB, a transfer breaks off or stalls after each 10 MB: s (alone: without that)",
        ALONE,
        (most(2, ALONE),),
    ),
    Row("lossy-source-upstream", "same, upstream bytes / blob", ALONE),
    Row("slow-readers-right", "500 readers at 100 KB/s: served right, %", targets=(least(100),)),
    Row("slow-readers-rss", "same, RSS MB", targets=(most(100, unit="MB"),)),
    Row("slow-readers-probe", "same, slowest probe ms", targets=(most(50, unit="ms"),)),
    Row(
        "arrivals",
        "500 readers arrive at once for a warm blob: another client's slowest 2 KiB blob, ms",
        targets=(most(40, unit="ms"), most(1.5, STATIC)),
    ),
    Row("arrivals-p99", "same, its 99th percentile, ms"),
    Row("arrivals-rate", "same, all readers together, GB/s"),
    Row("small-fills", "small blobs of 2 KiB, cold, 32 at a time: filled per second", targets=(least(2500),)),
    Row("workers-small", "two workers, 2 KiB config blob, 32 connections, req/s", ONE_WORKER, BETTER),
    Row("workers-small-p99", "same, p99 ms", ONE_WORKER),
    Row("workers-small-cpu", "same, server CPU µs per request", ONE_WORKER),
    Row("workers-tls", "two workers, 100 MiB over TLS, 4 clients, GB/s", ONE_WORKER, BETTER),
    Row("workers-tls-cpu", "same, server CPU s per GB", ONE_WORKER),
    Row("workers-herd", "two workers, herd of 50 as above, last client s", ONE_WORKER),
    Row("workers-herd-upstream", "same, upstream bytes / blob", ONE_WORKER, (ONCE,)),
    Row("durable-small", "durability safe, blobs of 2 KiB: filled per second", FAST, (least(0.9, FAST),)),
    Row("durable-medium", "same, 512 KiB, 8 at a time: filled per second", FAST, (least(0.5, FAST),)),
    Row("durable-giant", "same, 1 GiB: s", FAST, (most(1.5, FAST),)),
    Row("push-gib", "push of 1 GiB with its length, MiB/s", REGISTRY, (least(1, REGISTRY),)),
    Row("push-gib-cpu", "same, server CPU s per GB", REGISTRY, (most(1, REGISTRY),)),
    Row("push-gib-chunked", "push of 1 GiB in chunks of 32 KiB, MiB/s", REGISTRY, (least(1, REGISTRY),)),
    Row("push-gib-chunked-cpu", "same, server CPU s per GB", REGISTRY, (most(1, REGISTRY),)),
    Row("push-memory", "50 uploads at once: most memory, MiB", REGISTRY, (most(120, unit="MiB"),)),
    Row("push-small", "manifests pushed over 16 connections, per second", REGISTRY, (least(2, REGISTRY),)),
    Row("push-small-cpu", "same, server CPU µs per manifest", REGISTRY),
    *_carrying("export", "export of an image to a file"),
    *_carrying("import", "import of that file"),
    *_beside("idle", "10,000 idle connections"),
    *_beside("leave", "2,000 clients ask for cold blobs and leave"),
    *_beside("slow", "200 slow readers of 360 MiB, quota 100 MiB"),
    *_beside("body", "compressed and endless request bodies"),
    *_beside("names", "1,000 unique names a second"),
    Row("abuse-names-rate", "same, names that were answered per second"),
    Row("abuse-names-cpu", "same, server CPU ms per name, the other client's requests included"),
    *_beside("index", "huge indexes, 26,900 descriptors each"),
)
