"""Parts of a source (`mirror.upstream.source`): its connections for blobs, its answers."""
