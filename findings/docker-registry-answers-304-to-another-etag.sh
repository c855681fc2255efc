#!/usr/bin/env bash
# docker-registry 2.8.2 (Debian 12, distribution v2): the ETag that it sends for a tag of several platforms is never
# answered 304, and the ETag of the list, which it did not send, is.
#
# A client whose Accept has Docker's manifest and not Docker's list gets, by tag, linux/amd64's manifest out of the
# list, with the manifest's digest as ETag. A good guess is that If-None-Match with this ETag is a 304. The registry
# compares before it chooses: with the digest of the list. So the client's ETag always costs the whole manifest,
# and a client that has kept the list and now wants a single manifest is told that nothing has changed.
#
# Who meets this: caches and clients that revalidate manifests by tag. Compare the digest of what would be sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${registry:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null && dpkg -x docker-registry_*.deb root
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > registry.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $folder/storage}}
http: {addr: "127.0.0.1:$port"}
log: {level: error, accesslog: {disabled: true}}
YAML
root/usr/bin/docker-registry serve registry.yml >log 2>&1 &
registry=$!
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do kill -0 "$registry" || { cat log; exit 1; }; done
python3 - "http://127.0.0.1:$port/v2/x" <<'PY'
"""Push a list of one platform, ask for its tag with a single manifest's Accept, and revalidate with both ETags."""
import hashlib, json, sys, urllib.error, urllib.request

BASE = sys.argv[1]
SINGLE = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"


def ask(url, method="GET", data=None, **headers):
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        return error


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


config = b"{}"
place = ask(f"{BASE}/blobs/uploads/", "POST", b"").headers["Location"]
ask(f"{place}&digest={digest(config)}", "PUT", config, **{"Content-Type": "application/octet-stream"})
manifest = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": SINGLE,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [],
    }
).encode()
ask(f"{BASE}/manifests/{digest(manifest)}", "PUT", manifest, **{"Content-Type": SINGLE})
entry = {"mediaType": SINGLE, "digest": digest(manifest), "size": len(manifest)}
entry["platform"] = {"os": "linux", "architecture": "amd64"}
index = json.dumps({"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]}).encode()
ask(f"{BASE}/manifests/t", "PUT", index, **{"Content-Type": LIST})

etag = ask(f"{BASE}/manifests/t", Accept=SINGLE).headers["Etag"]
own = ask(f"{BASE}/manifests/t", Accept=SINGLE, **{"If-None-Match": etag}).status
other = ask(f"{BASE}/manifests/t", Accept=SINGLE, **{"If-None-Match": f'"{digest(index)}"'}).status
print(f"ETag sent is that of the manifest: {etag == chr(34) + digest(manifest) + chr(34)}")
print(f"If-None-Match with the ETag sent: {own}; with the list's, which was not sent: {other}")
if (etag.strip('"'), own, other) != (digest(manifest), 200, 304):
    sys.exit("changed")
PY
echo "as described: 304 for the list's ETag only"
