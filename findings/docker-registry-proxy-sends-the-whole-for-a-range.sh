#!/usr/bin/env bash
# docker-registry 2.8.2 (Debian 12, distribution v2) as a pull-through cache: a range of a blob that is not in its cache
# is answered 200 with the whole blob, and once the blob is in the cache 206 with the range.
#
# A good guess is that a cache passes the range on, or cuts it out of what it fetches: a registry that is no cache answers
# 206. Here each range of a cold blob is a download of all of it, from the upstream and to the client.
#
# Who meets this: clients that pull one layer in several parts at a time (Bottlerocket, containerd 2 with
# max_concurrent_downloads of a layer) and lazy snapshotters. Some of them end at the 200, the others receive the blob
# as often as they ask.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${origin:-}" "${proxy:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq docker-registry=2.8.2+ds1-1 2>/dev/null && dpkg -x docker-registry_*.deb root
free() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() {  # NAME PORT MORE
    cat > "$1.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $folder/$1}}
http: {addr: "127.0.0.1:$2"}
log: {level: error, accesslog: {disabled: true}}
$3
YAML
    root/usr/bin/docker-registry serve "$1.yml" >"$1.log" 2>&1 &
}
await() { until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do kill -0 "$2" || { cat ./*.log; exit 1; }; done; }
first=$(free)
start origin "$first" ""; origin=$!
await "$first" "$origin"
second=$(free)
start proxy "$second" "proxy: {remoteurl: 'http://127.0.0.1:$first'}"; proxy=$!
await "$second" "$proxy"
python3 - "http://127.0.0.1:$first/v2/x" "http://127.0.0.1:$second/v2/x" <<'PY'
"""Push a blob of 1 MiB, and ask both registries for its first 100 bytes; the cache until it has the blob."""
import hashlib, sys, time, urllib.request

ORIGIN, PROXY = sys.argv[1:]
DATA = bytes(range(256)) * 4096
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def ask(url, method="GET", data=None, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method, headers=headers)) as answer:
        return answer.status, answer.headers, answer.read()


place = ask(f"{ORIGIN}/blobs/uploads/", "POST", b"")[1]["Location"]
ask(f"{place}&digest={DIGEST}", "PUT", DATA, **{"Content-Type": "application/octet-stream"})


def part(base):
    status, _, body = ask(f"{base}/blobs/{DIGEST}", Range="bytes=0-99")
    return status, len(body)


direct, cold = part(ORIGIN), part(PROXY)
end = time.monotonic() + 30
while (warm := part(PROXY))[0] != 206 and time.monotonic() < end:
    time.sleep(0.1)  # it stores the blob in the background
print(f"bytes=0-99 of a blob of {len(DATA)}: registry {direct}; cache at first {cold}, later {warm}")
if (direct, cold, warm) != ((206, 100), (200, len(DATA)), (206, 100)):
    sys.exit("changed")
PY
echo "as described: the whole blob while the cache does not have it"
