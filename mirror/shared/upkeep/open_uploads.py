"""Uploads in parts that have begun and not ended: a mirror that is killed leaves them in the bucket for good.

The library for the object store lists none, so the two requests for it are made and signed here, by the keys
of the configuration. Where the keys come from elsewhere, a lifecycle rule of the bucket has to do it.
"""

import hashlib
import hmac
import re
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from mirror.config.tier.shared import Bucket, SharedSettings
from mirror.oci.digest import Digest
from mirror.shared.errors import TierError, TierFault
from mirror.shared.keys import BLOBS, parse_blob_key

# The longest list that is read, in bytes: a thousand uploads.
MOST_TEXT = 4 * 1024 * 1024

# The most pages of one list.
MOST_PAGES = 1000

_EMPTY = hashlib.sha256(b"").hexdigest()
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_FIELD = re.compile(r"<(Key|UploadId|Initiated)>([^<&]{1,2048})</\1>")
_NEXT = re.compile(r"<(NextKeyMarker|NextUploadIdMarker)>([^<&]{1,2048})</\1>")


class OpenUpload(Struct, frozen=True):
    """An upload of a blob that has not ended. `age`: seconds since its begin, by the store's clock."""

    digest: Digest
    key: str
    upload: str
    age: float


class OpenUploads:
    """The uploads in one bucket, below the prefix. All methods raise TierError."""

    def __init__(self, settings: SharedSettings, bucket: Bucket) -> None:
        self._settings = settings
        self._prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        self._region = settings.region
        if settings.endpoint is None:
            self._base = f"https://{bucket.name}.s3.{settings.region}.amazonaws.com"
        else:
            self._base = f"{settings.endpoint.rstrip('/')}/{bucket.name}"

    @property
    def possible(self) -> bool:
        """Return whether the configuration has the keys with which requests are signed."""
        return self._settings.access_key is not None and self._settings.secret_key is not None

    async def list(self) -> AsyncIterator[OpenUpload]:
        """Yield the uploads of blobs; those of other programs are left out."""
        query = {"uploads": "", "prefix": f"{self._prefix}{BLOBS}/"}
        async with self._session() as session:
            for _ in range(MOST_PAGES):
                text, now = await self._ask(session, "GET", "", query)
                for each in _UPLOAD.findall(text):
                    found = self._parse(dict(_FIELD.findall(each)), now)
                    if found is not None:
                        yield found
                after = dict(_NEXT.findall(text))
                if "<IsTruncated>true</IsTruncated>" not in text or len(after) != 2:
                    return
                query |= {
                    "key-marker": after["NextKeyMarker"],
                    "upload-id-marker": after["NextUploadIdMarker"],
                }

    async def abort(self, upload: OpenUpload) -> None:
        """Remove the parts of an upload; do nothing if it has ended meanwhile."""
        async with self._session() as session:
            await self._ask(session, "DELETE", f"/{upload.key}", {"uploadId": upload.upload})

    def _parse(self, fields: dict[str, str], now: float) -> OpenUpload | None:
        key, upload = fields.get("Key", ""), fields.get("UploadId")
        digest = parse_blob_key(key.removeprefix(self._prefix)) if key.startswith(self._prefix) else None
        try:
            begun = datetime.fromisoformat(fields.get("Initiated", ""))
        except ValueError:
            return None
        if digest is None or upload is None:
            return None
        begun = begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)
        return OpenUpload(digest, key, upload, now - begun.timestamp())

    def _session(self) -> aiohttp.ClientSession:
        certificates = self._settings.certificates
        trusted = None if certificates is None else ssl.create_default_context(cadata=certificates.decode())
        connector = aiohttp.TCPConnector(ssl=trusted if trusted is not None else True)
        timeout = aiohttp.ClientTimeout(total=30.0, sock_connect=self._settings.timeout)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True)

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, query: dict[str, str]
    ) -> tuple[str, float]:
        """Return the text of an answer, and its time by the store's clock."""
        url = f"{self._base}{quote(path, safe='/~')}"
        encoded = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(query.items()))
        try:
            async with session.request(
                method,
                URL(f"{url}?{encoded}", encoded=True),
                headers=self._signed(method, url, encoded, time.time()),
                allow_redirects=False,
            ) as response:
                text = (await _read(response.content)).decode("utf-8", "replace")
                if response.status >= 300 and not (method == "DELETE" and response.status == 404):
                    fault = TierFault.REFUSED if response.status in (401, 403) else TierFault.UNREACHABLE
                    message = f"the object store answers {response.status} about uploads that have not ended"
                    raise TierError(fault, message)
                return text, _date(response.headers.get("Date", ""))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            message = f"the object store does not list its uploads: {type(error).__name__}"
            raise TierError(TierFault.UNREACHABLE, message) from None

    def _signed(self, method: str, url: str, query: str, now: float) -> dict[str, str]:
        """Return the headers of a request with its signature (AWS Signature Version 4)."""
        access, secret = self._settings.access_key, self._settings.secret_key
        if access is None or secret is None:
            raise AssertionError("no keys to sign with")
        parts, moment = urlsplit(url), datetime.fromtimestamp(now, UTC)
        stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
        headers = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = "\n".join((method, parts.path or "/", query, lines, names, _EMPTY))
        scope = f"{day}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{secret.get_secret_value()}".encode()
        for each in (day, self._region, "s3", "aws4_request"):
            key = hmac.new(key, each.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        value = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
        return headers | {"Authorization": value}


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Return an answer to its end. TierError if it is longer than MOST_TEXT."""
    data = bytearray()
    async for piece in content.iter_any():
        data += piece
        if len(data) > MOST_TEXT:
            message = "the object store lists its uploads at more length than is read"
            raise TierError(TierFault.UNREACHABLE, message)
    return bytes(data)


def _quoted(text: str) -> str:
    return quote(text, safe="~")


def _date(text: str) -> float:
    """Return the store's time; this mirror's own where the store tells none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return time.time()
