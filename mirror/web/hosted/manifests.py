"""HTTP of pushed manifests, and of deletions: OCI distribution-spec, "Pushing Manifests" and "Content
Management".

The client has been identified and authorised, and the body of its request was read, before this is called.
"""

from aiohttp import hdrs, web
from msgspec.structs import replace

from mirror.access.secret_path import API
from mirror.cache.results import Outcome
from mirror.config.hosting.hosted import HostedSettings
from mirror.hosted.registry import HostedRegistry
from mirror.hosted.replication.marker import noting_replica
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Tag, Target, TargetKind
from mirror.web import responses
from mirror.web.request_log import RequestRecord

# Most tags that one push by digest may name; a registry should take ten.
MOST_TAGS = 100

CREATED, ACCEPTED = 201, 202


class ManifestApi:
    """The handlers of PUT and DELETE on what a repository has."""

    def __init__(self, registry: HostedRegistry) -> None:
        self._registry = registry

    def longest_body(self, target: Target) -> int:
        """Return how many bytes of a manifest are to be read: one more than is taken, to tell that apart."""
        return self._settings(target).max_manifest + 1

    async def put(self, record: RequestRecord, target: Target, data: bytes) -> web.StreamResponse:
        """Keep the manifest of a request. Raises RegistryError."""
        repository, request = _repository(target), record.request
        if target.kind is not TargetKind.MANIFEST or target.reference is None:
            raise RegistryError(Code.UNSUPPORTED, "only manifests are put here: begin an upload with POST")
        tags = _tags(record) if isinstance(target.reference, Digest) else ()
        media_type = request.headers.get(hdrs.CONTENT_TYPE)
        with noting_replica(request.headers):
            put = await self._registry.put_manifest(repository, target.reference, media_type, data, tags)
        record.digest, record.outcome = put.digest, Outcome.PUSHED
        headers = {
            "Location": location(record, replace(target, reference=put.digest)),
            **responses.content_headers(put.digest),
        }
        if put.subject is not None:
            headers["OCI-Subject"] = str(put.subject)
        response = responses.buffered(record, CREATED, headers, b"")
        for tag in put.tags if tags else ():  # a line for each, as the specification has it
            response.headers.add("OCI-Tag", tag)
        return response

    async def delete(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """Remove a tag, a manifest or a blob. Raises RegistryError."""
        with noting_replica(record.request.headers):
            await self._delete(_repository(target), target)
        record.outcome = Outcome.DELETED
        return responses.buffered(record, ACCEPTED, {}, b"")

    async def _delete(self, repository: Repository, target: Target) -> None:
        reference = target.reference
        if target.kind is TargetKind.BLOB and isinstance(reference, Digest):
            await self._registry.delete_blob(repository, reference)
        elif target.kind is TargetKind.MANIFEST and isinstance(reference, Digest):
            await self._registry.delete_manifest(repository, reference)
        elif target.kind is TargetKind.MANIFEST and isinstance(reference, Tag):
            await self._registry.delete_tag(repository, reference)
        else:
            message = "only tags, manifests and blobs can be deleted"
            raise RegistryError(Code.UNSUPPORTED, message, status=405, headers={"Allow": "GET, HEAD"})

    def _settings(self, target: Target) -> HostedSettings:
        return self._registry.settings(_repository(target))


def location(record: RequestRecord, target: Target) -> str:
    """Return the path of what was pushed: relative, and with the registry's name, which holds at any Host."""
    prefix, path = record.path_prefix, target.path()
    return f"{prefix}{path.removeprefix(API) if prefix.startswith(API) else path}"


def _tags(record: RequestRecord) -> tuple[Tag, ...]:
    """Return the tags that a push by digest asks for. Raises RegistryError."""
    names = dict.fromkeys(record.request.query.getall("tag", []))
    if len(names) > MOST_TAGS:
        message = f"a push names at most {MOST_TAGS} tags, and this one names {len(names)}"
        raise RegistryError(Code.TAG_INVALID, message, status=414)
    return tuple(map(Tag.parse, names))


def _repository(target: Target) -> Repository:
    if target.repository is None:
        raise AssertionError(f"{target.kind} without a repository")
    return target.repository
