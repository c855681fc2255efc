#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12) and crane 0.22.1: a registry that offers Basic ahead of Bearer cannot be read without a login.
#
# RFC 9110 lets a server offer several kinds of login, in any order. A good guess is that a client without a password
# takes Bearer wherever it stands: a token for reading is given to all. Both clients take the first kind, in one header
# line or in two, have no password for it, and end with 401; no request for a token is made. With Bearer ahead both read.
#
# Who meets this: operators who put a password in front of a registry that has a token service, for example with a
# proxy that adds its challenge to the registry's.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 2>/dev/null && dpkg -x skopeo_*.deb root
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
(cd "$(go mod download -json github.com/google/go-containerregistry@v0.22.1 |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" && go build -buildvcs=false -o "$folder/" ./cmd/crane)
cat > server.py <<'PY'
"""A registry of one small image whose challenge has the form that the repository's name asks for."""
import hashlib, http.server, json, pathlib, re

CONFIG = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": {}}'
DIGEST = "sha256:" + hashlib.sha256(CONFIG).hexdigest()
OCI = "application/vnd.oci.image"
MANIFEST = json.dumps({
    "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "layers": [],
    "config": {"mediaType": f"{OCI}.config.v1+json", "digest": DIGEST, "size": len(CONFIG)},
}).encode()

class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    form = ""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/form/"):
            Registry.form = path[len("/form/"):]
            return self.answer(200, b"")
        if path == "/token":
            with open("tokens", "a") as tokens:
                print("asked", file=tokens)
            return self.answer(200, b'{"token": "nobody", "access_token": "nobody"}')
        if self.headers.get("Authorization") != "Bearer nobody":
            host = self.headers["Host"]
            kinds = {"basic": 'Basic realm="r"', "bearer": f'Bearer realm="http://{host}/token",service="s"'}
            lines = [", ".join(kinds[kind] for kind in line.split("+")) for line in self.form.split("_")]
            return self.answer(401, b"{}", [("WWW-Authenticate", line) for line in lines])
        if path == "/v2/":
            return self.answer(200, b"{}")
        if "/manifests/" in path:
            return self.answer(200, MANIFEST, [("Content-Type", f"{OCI}.manifest.v1+json"), (
                "Docker-Content-Digest", "sha256:" + hashlib.sha256(MANIFEST).hexdigest())])
        self.answer(200, CONFIG, [("Content-Type", "application/octet-stream")])

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
touch tokens
python3 server.py & server=$!
until [ -s port ]; do sleep 0.1; done
port=$(cat port)
pull() {
    case $1 in
    skopeo) timeout 60 root/usr/bin/skopeo --insecure-policy --tmpdir "$folder" --registries.d /nowhere inspect --raw \
        --tls-verify=false "docker://127.0.0.1:$port/a:1" ;;
    crane) timeout 60 ./crane manifest --insecure "127.0.0.1:$port/a:1" ;;
    esac > "$1.out" 2>&1 && echo yes || echo no
}
for form in basic+bearer bearer+basic basic_bearer bearer_basic; do
    python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/form/$form')"
    tokens=$(wc -l < tokens)
    line="$form: skopeo $(pull skopeo), crane $(pull crane), tokens asked $(($(wc -l < tokens) - tokens))"
    echo "$line"
    echo "$line" >> seen
done
cat > expected <<'SEEN'
basic+bearer: skopeo no, crane no, tokens asked 0
bearer+basic: skopeo yes, crane yes, tokens asked 2
basic_bearer: skopeo no, crane no, tokens asked 0
bearer_basic: skopeo yes, crane yes, tokens asked 2
SEEN
diff expected seen || { echo "changed"; exit 1; }
echo "as described (+: in one line, _: in two)"
