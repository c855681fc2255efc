"""Requests that change a hosted registry: which handler each has, and errors in HTTP."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from mirror.access.rules import Action
from mirror.config.schema import Config
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Target, TargetKind
from mirror.service.service import Service
from mirror.store.errors import StoreError
from mirror.store.partial.upload import TooManyUploads, UploadInUse, UploadUnknown
from mirror.util.log import get_logger
from mirror.web.access_control import AccessControl
from mirror.web.hosted import answers
from mirror.web.hosted.manifests import ManifestApi
from mirror.web.hosted.mounts import Mounts
from mirror.web.hosted.receiving import Receiver, whole_body
from mirror.web.hosted.uploads_api import UploadsApi
from mirror.web.request_log import RequestRecord

log = get_logger(__name__)

Handler = Callable[[RequestRecord, Target], Awaitable[web.StreamResponse]]


class PushApi:
    """The handlers of all pushes and deletions."""

    def __init__(self, uploads: UploadsApi, contents: ManifestApi) -> None:
        self._contents = contents
        self._handlers: dict[TargetKind, dict[str, Handler]] = {
            TargetKind.MANIFEST: {"PUT": self._put, "DELETE": contents.delete},
            TargetKind.BLOB: {"DELETE": contents.delete},
        }
        self._begin: dict[str, Handler] = {"POST": uploads.begin}
        self._continue: dict[str, Handler] = {
            "GET": uploads.status,
            "HEAD": uploads.status,
            "PATCH": uploads.append,
            "PUT": uploads.finish,
            "DELETE": uploads.cancel,
        }

    def takes(self, record: RequestRecord, target: Target) -> bool:
        """Return whether a request is one of those that are handled here."""
        return target.kind is TargetKind.UPLOAD or record.request.method not in ("GET", "HEAD")

    async def handle(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        """Return the response. Raises RegistryError; other errors only when the client has left."""
        handlers, reads = self._handlers.get(target.kind, {}), "GET, HEAD"
        if target.kind is TargetKind.UPLOAD:
            handlers, reads = (self._continue if target.session else self._begin), ""
        handler = handlers.get(record.request.method)
        if handler is None:
            raise answers.not_allowed(record, ", ".join([*filter(None, [reads]), *handlers]))
        try:
            return await handler(record, target)
        except UploadUnknown:
            raise answers.unknown_upload(target.session) from None
        except UploadInUse:
            raise answers.upload_in_use(target.session) from None
        except TooManyUploads as error:
            raise answers.too_many(error.whose) from None
        except StoreError as error:
            message = f"this registry cannot use its disk: {error}; see the log of its operator"
            raise RegistryError(Code.UNAVAILABLE, message) from error

    async def _put(self, record: RequestRecord, target: Target) -> web.StreamResponse:
        data = await whole_body(record.request, self._contents.longest_body(target) - 1)
        return await self._contents.put(record, target, data)


def push_api(service: Service, config: Config, access: AccessControl) -> PushApi | None:
    """Return the handlers of pushes; None where nothing is hosted."""
    if service.hosted is None or service.uploads is None:
        return None
    registry, uploads = service.hosted, service.uploads
    if not any(rule.allow and Action.PUSH in rule.actions for rule in access.policy.rules):
        to_do = 'add a [[rule]] with actions = ["push"], and identities or networks'
        log.warning("no client may push to the hosted registries", to_do=to_do)

    receiver = Receiver(uploads, service.metrics.pushed_bytes.inc)
    mounts = Mounts(registry, config.names(), access.may_pull)
    return PushApi(UploadsApi(registry, uploads, receiver, mounts), ManifestApi(registry))
