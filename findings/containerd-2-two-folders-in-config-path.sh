#!/usr/bin/env bash
# containerd 2.4.2: for Kubernetes, two folders in `config_path` ("A:B") are read as none; one folder is read.
#
# The documentation and `containerd config default` of 2.2 have config_path =
# "/etc/containerd/certs.d:/etc/docker/certs.d", and containerd 1 reads both folders, so a good guess is that
# hosts.toml in the first one counts. CRI of containerd 2 pulls by the transfer service, which takes the value for
# the name of one folder. There is no line about it in the log: pulls go straight to the registry. Without any
# config_path no hosts.toml is read either.
#
# Who meets this: everyone who keeps the default, or brings the setting along from containerd 1, and sets a mirror.
set -euo pipefail
folder=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    chmod -R u+w "$folder" && rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
export CGO_ENABLED=0 GOMODCACHE=$folder/modules GOCACHE=$folder/objects GOFLAGS=-buildvcs=false
build() { # module version program: inside the module, because `go install` refuses `exclude` in go.mod
    (cd "$(go mod download -json "$1@$2" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" && go build -o "$folder/" "$3")
}
build github.com/containerd/containerd/v2 v2.4.2 ./cmd/containerd
build sigs.k8s.io/cri-tools v1.37.0 ./cmd/crictl

# A mirror that has nothing: whether it was asked is all that matters.
python3 - >asked 2>&1 <<'PY' &
import http.server
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)
    do_HEAD = do_GET
server = http.server.HTTPServer(("127.0.0.1", 0), Mirror)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
pids+=($!)
until [ -s port ]; do sleep 0.1; done
mkdir -p A/_default B
printf '[host."http://127.0.0.1:%s"]\n  capabilities = ["pull", "resolve"]\n' "$(cat port)" >A/_default/hosts.toml

asked_with() { # config_path: is the mirror asked when an image is pulled?
    cat >config.toml <<TOML
version = 3
root = "$folder/root"
state = "$folder/state"
[grpc]
  address = "$folder/c.sock"
[ttrpc]
  address = "$folder/c.sock.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "$1"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "native"
TOML
    ./containerd --config config.toml >log 2>&1 &
    local pid=$!
    pids+=("$pid")
    local crictl=(./crictl --config /dev/null --image-endpoint "unix://$folder/c.sock")
    until "${crictl[@]}" images >/dev/null 2>&1; do sleep 0.2; done
    local before
    before=$(grep -c manifests asked || true)
    # A registry that is not there, so that nothing is asked but this machine.
    "${crictl[@]}" pull registry.invalid/library/x:1 >/dev/null 2>&1 || true
    kill "$pid" && wait "$pid" 2>/dev/null || true
    [ "$(grep -c manifests asked || true)" -gt "$before" ] && echo yes || echo no
}
one=$(asked_with "$folder/A")
two=$(asked_with "$folder/A:$folder/B")
echo "config_path of one folder: the mirror is asked: $one"
echo "config_path of two folders: the mirror is asked: $two"
[ "$one $two" = "yes no" ]
