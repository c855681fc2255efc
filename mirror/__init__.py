"""registry-mirror: a pull-through mirror and accelerator proxy for container registries.

An *upstream* is a registry that is mirrored, by its canonical name (`docker.io`). A client asks for a
manifest or a blob of a *repository*; the mirror downloads each digest once, keeps it, and serves it
from disk ever after.

    cli          one function per subcommand
    workers      several processes on one address, and the one that looks after them
    web          requests to targets, answers to bytes: sendfile from a blob or from the growing file
    service      the composition root: a configuration becomes everything below
    cache        where the two meet: a hit, or a flight that everybody waiting for a digest joins;
                 the fill that brings it, the planner that says what to fetch next
    store        what is on this disk: verified blobs, tag entries, links, growing files and their locks
    upstream     what others have: tokens, redirects, retries, ranges
    oci          the words: digests, references, ranges, manifests, errors; pure, without I/O
    config log metrics ledger listening tasks tls     leaves that every layer may use

Imports go down only, and each library has one door; `tests/test_architecture.py` holds both.

Three rules carry the rest. A file in the blob store hashes to its name, because only a verified fill
can put one there. A fill belongs to no client: slow, leaving and failing readers change nothing. And
a digest opens nothing by itself: content is served for a repository only with a *link*, the fact,
confirmed by its upstream or by a manifest of that repository, that the repository contains it.
"""

__version__ = "0.1.0"
