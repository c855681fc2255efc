"""Repositories of the cache folder, as ends of a copy: what is here already is linked, and not moved."""

import asyncio
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import BinaryIO

from msgspec.structs import replace

from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.copying.places import CopiedManifest, CopyFailed, OpenBody
from mirror.hosted.pushed import check_manifest
from mirror.hosted.refusals import refusal
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST
from mirror.oci.reference import Repository, Tag
from mirror.store.blobs.entries import Origin
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import PushRefused
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.hosted.push_writer import PushWriter
from mirror.store.hosted.pushes import PushedManifest, Quotas
from mirror.store.metadata.closure import Closures
from mirror.store.partial.upload import UploadStore

# Bytes that are read at a time.
PIECE = 1024 * 1024


class FolderSource:
    """A repository of the cache folder to read from, hosted or mirrored."""

    def __init__(self, folder: CacheDirectory, repository: Repository) -> None:
        self._folder = folder
        self._repository = repository
        self._closures = Closures(folder.index, folder.reader.read)

    async def tagged(self, tag: Tag) -> Digest | None:
        """Return the digest of a tag."""
        entry = await asyncio.to_thread(self._folder.index.tag, self._repository, tag)
        return None if entry is None else Digest.parse(entry.digest)

    async def manifest(self, digest: Digest) -> CopiedManifest | None:
        """Return a manifest of the repository."""
        return await asyncio.to_thread(self._manifest, digest)

    def _manifest(self, digest: Digest) -> CopiedManifest | None:
        link = self._folder.reader.link(self._repository, digest)
        if link is None or link.media_type is None or self._is_private(digest):
            return None
        data = self._folder.reader.read(digest, MAX_MANIFEST_BYTES * 16)
        return None if data is None else CopiedManifest(data, link.media_type or OCI_MANIFEST)

    def _is_private(self, digest: Digest) -> bool:
        return self._folder.reader.look_up(self._repository, digest).unconfirmed

    async def blob(self, digest: Digest, size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob of the repository."""
        found = await asyncio.to_thread(self._folder.reader.open_blob, self._repository, digest)
        try:
            if found.data is not None:
                yield found.data
                return
            if found.blob is None:
                raise CopyFailed(f"the blob {digest} ({size} bytes) of {self._repository} is not here")
            async for piece in pieces_of(found.blob.file):
                yield piece
        finally:
            found.close()

    async def referrers(self, digest: Digest) -> list[Digest]:
        """Return the manifests that refer to one."""
        return await asyncio.to_thread(self._referrers, digest)

    def _referrers(self, digest: Digest) -> list[Digest]:
        return [each.digest for each in self._closures.listed_referrers(self._repository, digest)]


class FolderTarget:
    """A hosted repository of the cache folder, which keeps its quotas and its immutable tags."""

    def __init__(
        self,
        folder: CacheDirectory,
        repository: Repository,
        settings: HostedSettings,
        writer: PushWriter | None = None,
    ) -> None:
        """`writer`: one for all repositories that one process writes, as each has a file of the journal."""
        self._folder = folder
        self._repository = repository
        self._settings = settings
        self._quotas = Quotas(settings.quota, settings.repository_quota)
        self._writer = writer or PushWriter(folder, HostedIndex(folder))
        self._uploads = UploadStore(folder.path / "uploads")
        HostedIndex(folder).names.register([settings.name], ())

    async def digest_of(self, reference: Tag | Digest) -> Digest | None:
        """Return the digest of a manifest that is here."""
        return await asyncio.to_thread(self._digest_of, reference)

    def _digest_of(self, reference: Tag | Digest) -> Digest | None:
        if isinstance(reference, Tag):
            entry = self._folder.index.tag(self._repository, reference)
            return None if entry is None else Digest.parse(entry.digest)
        link = self._folder.reader.link(self._repository, reference)
        found = link is not None and link.media_type is not None and self._folder.reader.has(reference)
        return reference if found else None

    async def has_blob(self, digest: Digest) -> bool:
        """Return whether the repository has a blob."""
        return await asyncio.to_thread(self._has_blob, digest)

    def _has_blob(self, digest: Digest) -> bool:
        reader = self._folder.reader
        return reader.link(self._repository, digest) is not None and reader.has(digest)

    async def put_blob(self, digest: Digest, size: int, body: OpenBody) -> bool:
        """Link a blob that another repository has; else write it."""
        try:
            if await asyncio.to_thread(self._writer.link_blob, self._repository, digest, self._quotas):
                return True
            index = HostedIndex(self._folder)
            await asyncio.to_thread(index.quotas.check, self._repository, size, self._quotas)
            await self._write(digest, body)
        except PushRefused as error:
            raise _failed(error) from None
        return False

    async def _write(self, digest: Digest, body: OpenBody) -> None:
        session = await asyncio.to_thread(self._uploads.create, self._repository, digest.algorithm)
        try:
            async for piece in body():
                await asyncio.to_thread(session.append, [piece])
            verified = await asyncio.to_thread(session.finish, digest)
            kept = replace(verified, origin=Origin.PRIVATE, retained=True, durable=self._folder.durable)
            excess = await asyncio.to_thread(self._writer.commit_blob, self._repository, kept, self._quotas)
            if excess > 0:
                await asyncio.to_thread(self._folder.evictor.evict)
        finally:
            await asyncio.to_thread(session.cancel)
            await asyncio.to_thread(session.release)

    async def put_manifest(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        """Keep a manifest, and let a tag point to it."""
        await asyncio.to_thread(self._put_manifest, reference, manifest)

    def _put_manifest(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        most = self._settings.max_manifest
        try:
            found = check_manifest(manifest.data, manifest.media_type, algorithm, most)
        except RegistryError as error:
            raise CopyFailed(error.message) from None
        tags = (reference,) if isinstance(reference, Tag) else ()
        push = PushedManifest(
            self._repository,
            found.digest,
            manifest.data,
            found.media_type,
            tags,
            found.blobs,
            found.manifests,
            found.subject,
            found.descriptor,
            tuple(each for each in tags if self._is_immutable(each)),
            self._quotas,
            bool(self._settings.immutable_tags),
        )
        (result,) = self._writer.put_manifests([push])
        if isinstance(result, PushRefused):
            raise _failed(result)

    def _is_immutable(self, tag: Tag) -> bool:
        return any(fnmatchcase(tag.name, each) for each in self._settings.immutable_tags)


async def pieces_of(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yield the bytes of an open file."""
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


def _failed(error: PushRefused) -> CopyFailed:
    return CopyFailed(refusal(error).message)
