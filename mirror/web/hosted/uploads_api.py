"""The handlers of uploads (OCI distribution-spec 1.1, "Pushing blobs"): POST, PATCH, GET, PUT and DELETE."""

import re
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from mirror.cache.results import Outcome
from mirror.hosted.registry import HostedRegistry
from mirror.hosted.uploads import Uploads
from mirror.oci.digest import ENCODED, Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Target
from mirror.store.partial.upload import UploadSession, UploadUnknown, WrongDigest
from mirror.web.hosted import answers
from mirror.web.hosted.body import PushedBody, has_no_body
from mirror.web.hosted.mounts import Mounts
from mirror.web.hosted.receiving import Receiver, unreadable
from mirror.web.request_log import RequestRecord

# A chunk's place, "Pushing a blob in chunks"; and as old clients write it.
CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")

Check = Callable[[int], Awaitable[object]]


class UploadsApi:
    """Uploads of the hosted registries."""

    def __init__(
        self, registry: HostedRegistry, uploads: Uploads, receiver: Receiver, mounts: Mounts
    ) -> None:
        self._registry = registry
        self._uploads = uploads
        self._receiver = receiver
        self._mounts = mounts

    async def begin(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """POST: a new session, or in one request a mount or the whole blob."""
        repository, query = _repository(target), record.request.query
        algorithm = query.get("digest-algorithm", "sha256")
        if algorithm not in ENCODED:
            message = f"digest-algorithm is {' or '.join(ENCODED)} here, not {algorithm!r:.40}"
            raise RegistryError(Code.DIGEST_INVALID, message)
        if "mount" in query:
            mounted = await self._mounts.mount(record, target, query["mount"], query.get("from"))
            if mounted is not None:
                return answers.created(record, target, mounted)
        elif "digest" in query and not has_no_body(record.request.content):
            return await self._push_whole(record, target, Digest.parse(query["digest"]))
        async with self._uploads.begin(repository, algorithm) as session:
            headers = answers.session_headers(record, target, session.id, 0)
        chunk = {"OCI-Chunk-Min-Length": answers.CHUNK_BYTES}
        return answers.empty(record, 202, {**headers, **chunk}, Outcome.PUSHED)

    async def _push_whole(self, record: RequestRecord, target: Target, digest: Digest) -> web.StreamResponse:
        repository = _repository(target)
        async with self._uploads.begin(repository, digest.algorithm) as session:
            try:
                await self._receive(record, repository, session)
                return await self._finish(record, target, session, digest)
            finally:
                await self._uploads.cancel(session)  # a client that was refused has no name of it

    async def append(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """PATCH: the next chunk."""
        async with self._uploads.resume(_repository(target), target.session) as session:
            self._check_range(record, target, session)
            await self._receive(record, _repository(target), session)
            headers = answers.session_headers(record, target, session.id, session.offset)
        return answers.empty(record, 202, headers, Outcome.PUSHED)

    async def status(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """GET: how much has come."""
        async with self._uploads.resume(_repository(target), target.session) as session:
            headers = answers.session_headers(record, target, session.id, session.offset)
        return answers.empty(record, 204, headers, Outcome.HIT)

    async def finish(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """PUT: the last chunk, or none, and the digest."""
        text = record.request.query.get("digest")
        if text is None:
            message = "an upload is finished with ?digest=: the digest of the whole blob"
            raise RegistryError(Code.DIGEST_INVALID, message)
        digest = Digest.parse(text)
        try:
            async with self._uploads.resume(_repository(target), target.session) as session:
                self._check_range(record, target, session)
                await self._receive(record, _repository(target), session)
                return await self._finish(record, target, session, digest)
        except UploadUnknown:
            if not await self._is_here(_repository(target), digest):
                raise
            return answers.created(record, target, digest)  # the first answer was lost

    async def cancel(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """DELETE: the session ends."""
        async with self._uploads.resume(_repository(target), target.session) as session:
            await self._uploads.cancel(session)
        return answers.empty(record, 204, {}, Outcome.DELETED)

    async def _receive(self, record: RequestRecord, repository: Repository, session: UploadSession) -> None:
        body = record.request.content
        if isinstance(body, PushedBody):
            await self._receiver.receive(
                session, body, partial(self._registry.may_add, repository, claim=session.claim)
            )
        elif not has_no_body(body):
            raise unreadable()

    async def _finish(
        self, record: RequestRecord, target: Target, session: UploadSession, digest: Digest
    ) -> web.StreamResponse:
        try:
            verified = await self._uploads.finish(session, digest)
        except WrongDigest as wrong:
            message = f"the upload has the digest {wrong.found}, and not {digest}"
            raise RegistryError(Code.DIGEST_INVALID, message, detail=str(wrong.found)) from None
        await self._registry.commit_upload(_repository(target), verified, digest)
        session.forget()
        return answers.created(record, target, digest)

    async def _is_here(self, repository: Repository, digest: Digest) -> bool:
        try:
            await self._registry.content.head_blob(repository, digest)
        except RegistryError:
            return False
        return True

    def _check_range(self, record: RequestRecord, target: Target, session: UploadSession) -> None:
        """Refuse a chunk that does not begin at the end of the last one, or whose length is another."""
        text = record.request.headers.get("Content-Range")
        if text is None:
            return
        found = CONTENT_RANGE.fullmatch(text)
        if found is None or int(found[2]) + 1 < int(found[1]):
            message = f"Content-Range is <first byte>-<last byte>, not {text!r:.60}"
            raise RegistryError(Code.BLOB_UPLOAD_INVALID, message)
        start, offset = int(found[1]), session.offset
        if start != offset:
            headers = answers.session_headers(record, target, session.id, offset)
            raise answers.wrong_range(headers, offset, start)
        body = record.request.content
        length = body.length if isinstance(body, PushedBody) else 0
        if length is not None and length != int(found[2]) + 1 - start:
            message = f"Content-Range names {int(found[2]) + 1 - start} bytes, and the body has {length}"
            raise RegistryError(Code.SIZE_INVALID, message, detail={"length": length})


def _repository(target: Target) -> Repository:
    if target.repository is None:
        raise AssertionError(f"{target.kind} without a repository")
    return target.repository
