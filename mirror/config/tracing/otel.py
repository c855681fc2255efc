"""The options of `[otel]`: traces for OpenTelemetry."""

from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from mirror.config.types import Strings
from mirror.config.validation import After, Doc, Settings

# What the extra brings.
LIBRARY = "opentelemetry.exporter.otlp.proto.http"


def _check_endpoint(value: str | None) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(
            "must be the URL of a collector that takes OTLP over HTTP, without a password in it, for instance"
            " http://127.0.0.1:4318/v1/traces"
        )
    if not _is_installed():
        raise ValueError("needs packages of the extra: pip install 'registry-mirror[otel]'")
    return value


def _is_installed() -> bool:
    try:
        return find_spec(LIBRARY) is not None
    except ModuleNotFoundError:
        return False


class OtelSettings(Settings, frozen=True, kw_only=True):
    """Traces of requests, downloads and requests to upstreams. They need the extra `otel`."""

    endpoint: Annotated[
        str | None,
        After(_check_endpoint),
        Doc(
            "URL of a collector that takes OTLP over HTTP. Without it nothing is traced, and nothing of "
            "OpenTelemetry is imported. Headers for it come from the variable OTEL_EXPORTER_OTLP_HEADERS.",
            examples=["http://127.0.0.1:4318/v1/traces"],
        ),
    ] = None
    sample: Annotated[
        float,
        Meta(ge=0, le=1),
        Doc("Share of the traces that are sent. What a client says about that does not raise it."),
    ] = 1.0
    service: Annotated[str, Doc("Name of this mirror in traces.")] = "registry-mirror"
    propagate: Annotated[
        Strings,
        Doc(
            "Names of upstreams that are told the trace of a request (the header traceparent): those of your "
            "own, which send traces to the same place. All others learn nothing of it.",
            examples=[["registry.lan"]],
        ),
    ] = ()
