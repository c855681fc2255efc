"""registry-mirror: a pull-through mirror and accelerator proxy for container registries.

An *upstream* is a mirrored registry, called by its canonical name (`docker.io`). A client requests a manifest
or a blob of a *repository*. The mirror downloads each digest once, stores the content, and serves it from
disk from then on. The packages, upper layers first:

    cli          the subcommands
    server       the `serve` command: a supervisor that holds the sockets, and its workers
    web          HTTP: requests to targets, results to bytes (sendfile), the cache of whole responses
    service      composition root: builds everything below from a configuration
    cache        what a client is given: hit, join, miss or stale; tag freshness, negative cache, prefetch
    manage       what operators do: inventory, removal, garbage collection, disk usage
    doctor       checks of the mirror's machine and of its upstreams
    transfer     downloads: flights that clients join, fills, the planner of ranges, pass-through
    store        this machine's disk, in five subpackages:
      metadata     the index of links, tags and referrers, and queries of it
      links        links for the event loop, and what they open
      blobs        verified blobs and their quota
      partial      growing files, their chunk maps and leases
      pins         images that are never evicted
    upstream     other registries: sources, accounts, tokens, retries, rate limits, circuit breakers
      http         below authentication: connections, redirects, proxies, name resolution
    system       sockets, systemd notifications, malloc
    setup        configuration of clients
    bundle       images in a tar, and archives of other programs; knows files and digests, not the cache
    config       the schema of options, and their loading
    metrics      Prometheus metrics of one process or of all workers
    util         tasks, single-flight, TTL cache, LRU, rate limiter, logging, TLS contexts
    oci          digests, references, ranges, manifests, errors: pure values without I/O

Imports go down only, and each library is used in one place; `tests/test_architecture.py` checks both.

Three rules hold everywhere, and everything else relies on them:

1. A *fill* is the one download of a digest that is not in the store. A file in the blob store hashes to its
   name, because only content that was just verified gets there: fills, manifests, copies from memory, and
   files that fsck has hashed.
2. All clients of a digest share one fill, and none of them owns the fill: no client that is slow, leaves or
   fails affects the others. Only a fill without any client may end, or wait for other fills.
3. To know a digest is not enough: content is served for a repository only with a *link*, a fact confirmed by
   the upstream or by a manifest of the repository, that the repository contains the content.

docs/architecture.md has the invariants in full, and a request from socket to disk and back.
"""

__version__ = "0.1.0"
