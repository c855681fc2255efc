"""Bundles: images in a tar that other programs can read too, and the archives of other programs.

Pure format: files, tars and digests. Nothing here knows the cache or an upstream.

    model      contents of a bundle, as the exporter gives them
    graph      manifests, and what each of them needs
    document   registry-mirror.json, the bundle's own manifest
    layout     oci-layout, index.json, manifest.json: what other programs read
    plan       the members of the tar, in order, with their offsets: known before a byte is written
    parts      one bundle as several tars
    writer     a plan becomes bytes, from any offset
    have       lists of digests that a receiver has
    archives   readers: bundles, OCI layouts, `docker save`, the storage folder of distribution
"""
