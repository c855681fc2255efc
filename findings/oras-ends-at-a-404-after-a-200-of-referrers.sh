#!/usr/bin/env bash
# oras 1.3.6: a registry that answers a request for referrers 200 where there are some, and 404 where there are none,
# makes `oras discover` and `oras copy --recursive` fail, where 404 for every such request is fine.
#
# The OCI distribution-spec forbids 404 there, but says that clients go on with the referrers tag at a 404, and so a
# good guess is that each request stands for itself. oras decides once for a repository: the first 200 means that it
# has the API, and from then on a 404 is fatal. An artifact has no referrers of its own, as a rule, so the failure comes
# with the first image that has an artifact, and not before.
#
# Who meets this: registries, caches and mirrors that answer 404 for an empty list, or that take the list from the tag
# schema where there is one. The answer has to be 200 with an empty index.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${registry:-}" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
(cd "$(go mod download -json oras.land/oras@v1.3.6 | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" &&
    go build -buildvcs=false -o "$folder/" ./cmd/oras)
cat >registry.py <<'PY'
"""Registry with an image and an artifact of it; the first part of the name says how lists of referrers are answered."""
import hashlib, http.server, json

TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = b"{}"


def descriptor(kind, data):
    return {"mediaType": kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def manifest(**more):
    config = descriptor("application/vnd.oci.image.config.v1+json", CONFIG)
    fields = {"schemaVersion": 2, "mediaType": TYPE, "config": config, "layers": [], **more}
    return json.dumps(fields).encode()


IMAGE = manifest()
ARTIFACT = manifest(artifactType="test/sbom", subject=descriptor(TYPE, IMAGE))
CONTENT = {descriptor("", each)["digest"]: each for each in (IMAGE, ARTIFACT, CONFIG)} | {"t": IMAGE}
LISTED = [{**descriptor(TYPE, ARTIFACT), "artifactType": "test/sbom"}]


def index(entries):
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def answer(path):
    """Return the status, the type and the body."""
    _, _, way, _, kind, last = path.partition("?")[0].split("/")
    if kind == "referrers":
        found = LISTED if last == descriptor(TYPE, IMAGE)["digest"] else []
        if way == "never" or (way == "mixed" and not found):
            return 404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'
        return 200, INDEX, index(found)
    if way == "never" and last == descriptor(TYPE, IMAGE)["digest"].replace(":", "-"):
        return 200, INDEX, index(LISTED)
    if last not in CONTENT:
        return 404, "application/json", b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'
    return 200, TYPE if kind == "manifests" else "application/octet-stream", CONTENT[last]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        status, kind, body = answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
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
for way in always never mixed; do
    image=127.0.0.1:$(cat port)/$way/image:t
    for what in "discover --plain-http" "copy --recursive --from-plain-http --to-oci-layout"; do
        layout=()
        [ "${what%% *}" = discover ] || layout=("$way:t")
        # shellcheck disable=SC2086  # the options are words
        if ./oras $what "$image" "${layout[@]}" >out 2>&1; then said=works; else said="fails: $(tail -n 1 out)"; fi
        printf '%s\t%s\t%s\n' "$way" "${what%% *}" "$said"
    done
done | tee seen
[ "$(grep -cE $'^(always|never)\t[a-z]*\tworks$' seen)" = 4 ]
[ "$(grep -cE $'^mixed\t[a-z]*\tfails' seen)" = 2 ]
