"""Images carried from one cache folder to another on a medium: export and import.

Synchronous, on a `CacheDirectory`, beside a running mirror or a stopped one.

    selection   images, platforms and referrers to export, as the operator names them
    contents    what a bundle is to have, and what of it is missing here
    held        blobs that no eviction takes away while an export reads them
    export      files of a bundle: resumed, complete, made again alone
    export_run  an export from its first byte to its report
    intake      blobs of an archive become blobs of the folder
    sinks       places for content that is not proven yet
    sharing     blocks and files that the cache folder shares with another program's
    pieces      blobs that come in several parts
    room        the room that an import takes, before anything is evicted for it
    names       names of imported images
    registrar   manifests, links, tags and pins of imported images
    imports     an import from its first byte to its report
    have        what the folder has, for an export elsewhere
"""
