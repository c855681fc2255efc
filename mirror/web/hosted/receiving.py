"""Bodies into uploads: pieces are written and hashed in a thread while the next one comes."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aiohttp import web

from mirror.hosted.uploads import NoRoomForUpload, Uploads
from mirror.oci.errors import Code, RegistryError
from mirror.store.partial.upload import Part, UploadSession
from mirror.web.hosted.answers import no_room
from mirror.web.hosted.body import PushedBody, WrongBody, has_no_body

# Size of a piece, in bytes: a thread is woken for each, so that large ones cost less. All uploads together
# hold two pieces each, or one where many run.
LARGEST_PIECE, SMALLEST_PIECE, ALL_PIECES = 1024 * 1024, 128 * 1024, 8 * 1024 * 1024

# Bytes of a body after which its room is asked for again: other processes take some meanwhile.
CHECKED_BYTES = 16 * 1024 * 1024

# Uploads up to this number read on while a piece is written; beyond that the others keep the disk busy.
OVERLAPPING = 4


class Receiver:
    """Receiver of the bodies of uploads, of one worker. `count` is called with the bytes that have come."""

    def __init__(self, uploads: Uploads, count: Callable[[int], object]) -> None:
        self._uploads = uploads
        self._count = count
        self._running = 0

    async def receive(
        self, session: UploadSession, body: PushedBody, check: Callable[[int], Awaitable[object]]
    ) -> None:
        """Append a body to an upload. `check` is asked about the size that the upload has by then.

        Raises RegistryError before the first byte is read, if that is known; ConnectionError when the client
        leaves: what has come by then stays.
        """
        offset = session.offset
        try:
            await check(offset + (body.length or 0))
            await self._uploads.check_room(body.length or 0)
            body.start()
            await self._pump(session, body, offset, check)
        except WrongBody as error:
            raise RegistryError(Code.BLOB_UPLOAD_INVALID, str(error), status=error.status) from None
        except NoRoomForUpload as error:
            raise no_room(error) from None

    async def _pump(
        self,
        session: UploadSession,
        body: PushedBody,
        offset: int,
        check: Callable[[int], Awaitable[object]],
    ) -> None:
        self._running += 1
        unchecked = 0
        try:
            end: Callable[[], Awaitable[object]] | None = None
            while (parts := await body.take(self._piece())).size:
                if end is not None:
                    await end()
                offset += parts.size
                missing = 0 if body.length is None else max(0, body.length - offset)
                unchecked += parts.size
                if body.length is None or unchecked >= CHECKED_BYTES:
                    await check(offset + missing)
                    unchecked = 0
                self._count(parts.size)
                end = self._append(session, parts.take(), missing)
                if self._running > OVERLAPPING:
                    await end()
                    end = None
            if end is not None:
                await end()
        finally:
            self._running -= 1

    def _append(
        self, session: UploadSession, parts: Sequence[Part], missing: int
    ) -> Callable[[], Awaitable[object]]:
        """Start to append a piece; return the function that waits for its end."""
        pending = self._uploads.start_append(session, parts)
        return partial(self._uploads.end_append, pending, session, parts, missing)

    def _piece(self) -> int:
        return max(SMALLEST_PIECE, min(LARGEST_PIECE, ALL_PIECES // max(1, self._running)))


async def whole_body(request: web.BaseRequest, most: int) -> bytes:
    """Return the body of a request, of at most `most` bytes. Raises RegistryError."""
    body = request.content
    if has_no_body(body):
        return b""
    if not isinstance(body, PushedBody):
        raise unreadable()
    if (body.length or 0) > most:
        raise too_large(most)
    body.start()
    found, size = [], 0
    try:
        while (parts := await body.take(SMALLEST_PIECE)).size:
            size += parts.size
            if size > most:
                raise too_large(most)
            found += parts.take()
    except WrongBody as error:
        raise RegistryError(Code.MANIFEST_INVALID, str(error), status=error.status) from None
    return b"".join(found)


def unreadable() -> RegistryError:
    """Return the error about a body whose framing is not taken."""
    message = "send the body with a Content-Length, or with Transfer-Encoding: chunked"
    return RegistryError(Code.UNSUPPORTED, message, status=411)


def too_large(most: int) -> RegistryError:
    """Return the error about a manifest that is larger than what is taken."""
    message = f"the manifest is larger than {most} bytes, and this registry takes no more (max_manifest)"
    return RegistryError(Code.SIZE_INVALID, message, status=413)
