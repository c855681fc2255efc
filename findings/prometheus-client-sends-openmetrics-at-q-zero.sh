#!/usr/bin/env bash
# prometheus-client 0.26.0: a scraper that refuses OpenMetrics with `q=0` is sent OpenMetrics.
#
# RFC 9110, 12.4.2: a quality value of 0 means "not acceptable". A good guess is that
# `Accept: text/plain, application/openmetrics-text;q=0` gets the text format. choose_encoder() looks for the
# media type only and ignores every q: the answer is OpenMetrics, in which counters are called otherwise in
# HELP and TYPE lines and `_created` series are left out or in by format. Order of preference is ignored too.
#
# Who meets this: whoever puts an exporter of this library behind a collector that asks by quality values.
# A server that has to obey them chooses the format itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet prometheus-client==0.26.0
"$folder/venv/bin/python" - <<'PY'
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import choose_encoder

registry = CollectorRegistry()
Counter("pulls", "Pulls answered.", registry=registry).inc()
seen = {}
for accept in (
    "*/*",
    "application/openmetrics-text;q=0, text/plain",
    "text/plain;q=1.0, application/openmetrics-text;version=1.0.0;q=0.1",
):
    encoder, content_type = choose_encoder(accept)
    seen[accept] = (content_type.split(";")[0], encoder(registry).decode().splitlines()[1])
    print(f"{accept!r:75} -> {seen[accept]}")
assert seen["*/*"] == ("text/plain", "# TYPE pulls_total counter"), "the default has changed"
for accept in list(seen)[1:]:
    assert seen[accept] == ("application/openmetrics-text", "# TYPE pulls counter"), f"{accept}: q is obeyed now"
print("as described: q=0 and a lower q are ignored")
PY
