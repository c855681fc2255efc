"""Responses for the image of `registry-mirror doctor --client`, which the mirror makes itself."""

from aiohttp import web

from mirror.cache.results import Outcome
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.marker import TAG, MarkerImage, marker_image, marker_in
from mirror.oci.reference import Target, TargetKind
from mirror.web import responses
from mirror.web.request_log import RequestRecord


def respond(record: RequestRecord, target: Target) -> web.StreamResponse | None:
    """Return the response to a request for such an image; None for any other request.

    Raises RegistryError 404 for what the image does not have: no upstream is asked for it.
    """
    marker = None if target.repository is None else marker_in(target.repository.path)
    if marker is None or target.kind not in (TargetKind.MANIFEST, TargetKind.BLOB):
        return None
    image, record.outcome, record.note = marker_image(marker), Outcome.HIT, "asked by registry-mirror doctor"
    if target.kind is TargetKind.BLOB:
        return _blob(record, image, target.reference)
    digest = target.reference if isinstance(target.reference, Digest) else image.index
    found = image.manifests.get(digest)
    if found is None or (not isinstance(target.reference, Digest) and str(target.reference) != TAG):
        raise RegistryError(Code.MANIFEST_UNKNOWN, f"the image of the doctor has the tag {TAG} and no other")
    media_type, data = found
    record.digest = digest
    headers = {"Content-Type": media_type, **responses.content_headers(digest)}
    return responses.buffered(record, 200, headers, data)


def _blob(record: RequestRecord, image: MarkerImage, digest: object) -> web.StreamResponse:
    if not isinstance(digest, Digest) or digest not in image.blobs:
        raise RegistryError(Code.BLOB_UNKNOWN, "the image of the doctor does not have this blob")
    record.digest = digest
    return responses.small_blob(record, digest, image.blobs[digest])
