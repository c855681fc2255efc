"""Repositories of other registries, as ends of a copy."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from mirror.hosted.copying.places import CopiedManifest, CopyFailed, OpenBody
from mirror.hosted.pushed import check_manifest
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import OCI_INDEX, ManifestInvalid, descriptors_of, referrers_tag
from mirror.oci.reference import Tag
from mirror.oci.referrers import array_of, descriptors_in, index_of, texts_of_index
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.pushing.push_client import PushClient
from mirror.upstream.registry_client import RegistryClient

# Largest manifest whose subject is read: registries take no larger ones.
MOST_BYTES = 64 * 1024 * 1024


class RegistrySource:
    """A repository to read from."""

    def __init__(self, client: RegistryClient, path: str) -> None:
        self._client = client
        self._path = path

    async def manifest(self, digest: Digest) -> CopiedManifest | None:
        """Return a manifest; None if the registry does not have it."""
        try:
            found = await self._client.get_manifest(self._path, digest)
        except UpstreamError as error:
            if error.failure is Failure.NOT_FOUND:
                return None
            raise
        return CopiedManifest(found.data, found.media_type)

    async def blob(self, digest: Digest, _size: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a blob."""
        async with (
            self._client.open_blob(self._path, digest) as body,
            aclosing(body.chunks()) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def referrers(self, digest: Digest) -> list[Digest]:
        """Return what refers to a manifest; by a tag where the registry has no list."""
        try:
            listed = await self._client.referrers(self._path, digest)
            found = list(descriptors_in(listed))
        except UpstreamError as error:
            if error.failure is not Failure.NOT_FOUND:
                raise
            found = await self._tagged(digest)
        return [each.digest for each in descriptors_of(found)]

    async def _tagged(self, digest: Digest) -> list[Mapping[str, Any]]:
        try:
            found = await self._client.get_manifest(self._path, referrers_tag(digest))
        except UpstreamError as error:
            if error.failure is Failure.NOT_FOUND:
                return []
            raise
        return list(descriptors_in(array_of(_texts(found.data, self._path))))


class RegistryTarget:
    """A repository to push to. `mounts`: repositories there that have blobs, which the caller knows of."""

    def __init__(self, client: PushClient, path: str, mounts: dict[Digest, str] | None = None) -> None:
        self._client = client
        self._path = path
        self._mounts = mounts if mounts is not None else {}

    async def digest_of(self, reference: Tag | Digest) -> Digest | None:
        """Return the digest of a manifest that is there."""
        return await self._client.digest_of(self._path, reference)

    async def has_blob(self, digest: Digest) -> bool:
        """Return whether the repository has a blob."""
        return await self._client.has_blob(self._path, digest)

    async def put_blob(self, digest: Digest, size: int, body: OpenBody) -> bool:
        """Mount a blob, or send it."""
        source = self._mounts.get(digest)
        source = None if source == self._path else source
        mounted = await self._client.put_blob(self._path, digest, size, body, source)
        self._mounts[digest] = self._path
        return mounted

    async def put_manifest(self, reference: Tag | Digest, manifest: CopiedManifest) -> None:
        """Push a manifest; where the registry has no list of referrers, keep that list by its tag."""
        noted = await self._client.put_manifest(self._path, reference, manifest.media_type, manifest.data)
        if not noted:
            await self._note_subject(manifest)

    async def _note_subject(self, manifest: CopiedManifest) -> None:
        """Keep the list of referrers as a tag (OCI distribution-spec, "Pushing Manifests with Subject")."""
        try:
            found = check_manifest(manifest.data, manifest.media_type, "sha256", MOST_BYTES)
        except RegistryError:
            return
        if found.subject is None:
            return
        tag = referrers_tag(found.subject)
        data = await self._client.get_manifest(self._path, tag)
        texts = [] if data is None else _texts(data, f"{self._path}:{tag}")
        if all(each.get("digest") != str(found.digest) for each in descriptors_in(array_of(texts))):
            index = index_of(array_of([*texts, found.descriptor]))
            await self._client.put_manifest(self._path, tag, OCI_INDEX, index)


def _texts(data: bytes, name: str) -> list[str]:
    """Return the descriptors of a list of referrers that is kept by a tag. Raises CopyFailed."""
    try:
        return texts_of_index(data)
    except ManifestInvalid as error:
        raise CopyFailed(f"{name}, the list of referrers, cannot be read: {error}") from None
