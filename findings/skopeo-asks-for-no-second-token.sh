#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12) and crane 0.22.1: a token that a registry refuses in the middle of a copy ends skopeo's copy,
# though the token service is there; crane asks for another token and goes on.
#
# The answer 401 with `error="invalid_token"` says that the token is no longer good (RFC 6750). A good guess is that
# clients ask for another one, as at their first 401. skopeo does so at the first 401 only; a copy whose later layers
# begin after the end of its token fails, and what it has fetched so far is fetched again by the next try.
#
# Who meets this: operators of token services who make tokens short, or whose restart forgets the tokens handed out, and
# people with slow lines.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 2>/dev/null && dpkg -x skopeo_*.deb root
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
(cd "$(go mod download -json github.com/google/go-containerregistry@v0.22.1 |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" && go build -buildvcs=false -o "$folder/" ./cmd/crane)
cat > server.py <<'PY'
"""A registry of one image of two layers, whose first token is good for the manifest and refused at the layers."""
import gzip, hashlib, http.server, io, json, pathlib, tarfile

BLOBS = {}

def blob(data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    BLOBS[digest] = data
    return {"digest": digest, "size": len(data)}

def layer(name):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    diffs.append("sha256:" + hashlib.sha256(tar.getvalue()).hexdigest())
    return {"mediaType": f"{OCI}.layer.v1.tar+gzip", **blob(gzip.compress(tar.getvalue(), mtime=0))}

OCI, diffs = "application/vnd.oci.image", []
layers = [layer("one"), layer("two")]
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}, "config": {}}
MANIFEST = json.dumps({
    "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "layers": layers,
    "config": {"mediaType": f"{OCI}.config.v1+json", **blob(json.dumps(config).encode())},
}).encode()

class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tokens = 0

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/token":
            Registry.tokens += 1
            pathlib.Path("tokens").write_text(str(Registry.tokens))
            token = f"token{Registry.tokens}"
            return self.answer(200, json.dumps({"token": token, "access_token": token, "expires_in": 300}).encode())
        held = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        old = "/blobs/" in path and held == "token1"
        if not held or old:
            realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="s",scope="repository:a:pull"'
            challenge = realm + (',error="invalid_token"' if old else "")
            return self.answer(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', [("WWW-Authenticate", challenge)])
        if path == "/v2/":
            return self.answer(200, b"{}")
        if "/manifests/" in path:
            return self.answer(200, MANIFEST, [("Content-Type", f"{OCI}.manifest.v1+json"), (
                "Docker-Content-Digest", "sha256:" + hashlib.sha256(MANIFEST).hexdigest())])
        self.answer(200, BLOBS[path.rpartition("/")[2]], [("Content-Type", "application/octet-stream")])

    do_HEAD = do_GET

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
pathlib.Path("port.new").write_text(str(server.server_port))
pathlib.Path("port.new").rename("port")
server.serve_forever()
PY
copy() {  # prints whether the copy was made, and how many tokens were asked for
    rm -f port tokens
    python3 server.py & server=$!
    until [ -s port ]; do sleep 0.1; done
    local source="127.0.0.1:$(cat port)/a:1" made=no
    case $1 in
    skopeo) timeout 60 root/usr/bin/skopeo --insecure-policy --tmpdir "$folder" copy --src-tls-verify=false \
        "docker://$source" dir:copied > skopeo.out 2>&1 && made=yes ;;
    crane) timeout 60 ./crane pull --insecure "$source" copied.tar > crane.out 2>&1 && made=yes ;;
    esac
    kill "$server"
    wait "$server" 2>/dev/null || true
    echo "$1: copied $made, tokens asked $(cat tokens)" | tee -a seen
}
copy skopeo
tail -1 skopeo.out
copy crane
cat > expected <<'SEEN'
skopeo: copied no, tokens asked 1
crane: copied yes, tokens asked 2
SEEN
diff expected seen || { echo "changed"; exit 1; }
echo "as described"
