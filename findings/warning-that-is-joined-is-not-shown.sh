#!/usr/bin/env bash
# crane 0.22.1, regctl 0.11.7, oras 1.3.6: a registry's `Warning: 299 - "..."` is lost, or shown with what is not its
# text, once a proxy has joined it with another Warning into one line.
#
# HTTP lets any intermediary join field lines of one name with commas (RFC 9110 5.3), and many proxies and frameworks
# do, so a good guess is that a client that shows two lines shows one line with both. oras shows nothing of it, regctl
# and crane nothing if the 299 is not the first; crane shows the second warning as a part of the first, and a
# warn-date as text.
#
# Who meets this: registries, mirrors and proxies that tell of deprecated tags, end of life, or stale content. The 299
# has to be a field line of its own, without a date.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${registry:-}" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
build() { # module version program
    (cd "$(go mod download -json "$1@$2" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" &&
        go build -buildvcs=false -o "$folder/" "./cmd/$3")
}
build github.com/google/go-containerregistry v0.22.1 crane
build github.com/regclient/regclient v0.11.7 regctl
build oras.land/oras v1.3.6 oras
cat >registry.py <<'PY'
"""Registry with one image, whose manifest comes with Warnings as the repository's name says."""
import hashlib, http.server, json

TYPE = "application/vnd.oci.image.manifest.v1+json"
OTHER, OWN = '110 proxy "Response is Stale"', '299 - "this tag is deprecated"'
WARNINGS = {
    "alone": [OWN],
    "two-lines": [OTHER, OWN],
    "joined": [f"{OWN}, {OTHER}"],
    "joined-behind": [f"{OTHER}, {OWN}"],
    "dated": [f'{OWN} "Sat, 28 Nov 2026 08:00:00 GMT"'],
}
CONFIG = b"{}"


def descriptor(kind, data):
    return {"mediaType": kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": TYPE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", CONFIG),
        "layers": [],
    }
).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        _, _, name, kind, *_ = (*self.path.split("/"), "", "")
        body = MANIFEST if kind == "manifests" else CONFIG
        self.send_response(200)
        self.send_header("Content-Type", TYPE if kind == "manifests" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
        for warning in WARNINGS.get(name, []) if kind == "manifests" else []:
            self.send_header("Warning", warning)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
python3 registry.py >port &
registry=$!
until [ -s port ]; do kill -0 "$registry"; done
address=127.0.0.1:$(cat port)
printf '{"hosts": {"%s": {"tls": "disabled"}}}' "$address" >regctl.json
export REGCTL_CONFIG=$folder/regctl.json
shown() { # client, name: what is shown of the warning, without colours and times
    case $1 in
    crane) ./crane manifest "$address/$2:t" ;;
    regctl) ./regctl manifest get "$address/$2:t" ;;
    oras) ./oras manifest fetch --plain-http "$address/$2:t" ;;
    esac 2>&1 | sed 's/\x1b\[[0-9;]*m//g' | grep -o 'this tag is deprecated.*' || echo nothing
}
for client in crane regctl oras; do
    for name in alone two-lines joined joined-behind dated; do
        printf '%s\t%s\t%s\n' "$client" "$name" "$(shown "$client" "$name")"
    done
done | tee seen
text='this tag is deprecated'
[ "$(grep -cE $'\t(alone|two-lines)\t'"$text" seen)" = 6 ]
[ "$(grep -cE $'\tjoined-behind\tnothing$' seen)" = 3 ]
grep -q $'^oras\tjoined\tnothing$' seen
grep -q $'^oras\tdated\tnothing$' seen
grep -q $'^crane\tjoined\t'"$text"'", 110 ' seen
grep -q $'^crane\tdated\t'"$text"'" "Sat' seen
