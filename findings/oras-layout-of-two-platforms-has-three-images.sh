#!/usr/bin/env bash
# oras 1.3.6: `oras cp --to-oci-layout` of one image of two platforms makes a layout of three images, which skopeo
# 1.9.3 does not copy without a name, and podman 4.3.1 does not load at all.
#
# A good guess is that index.json gets one entry, the index with its tag, as `skopeo copy --all` writes it. oras adds
# an entry without a name for each platform. skopeo and podman count entries: "more than one image in oci, choose an
# image". oras also keeps the `io.containerd.image.name` of the source beside the new tag, and containerd reads that
# in place of the tag.
#
# Who meets this: whoever carries an image of several platforms to another network with oras, for podman there.
# `skopeo copy oci:FOLDER:TAG` works; `podman load` has no way to choose.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 2>/dev/null && dpkg -x skopeo_*.deb root
skopeo() { "$folder/root/usr/bin/skopeo" --insecure-policy --tmpdir "$folder" "$@"; }
export GOMODCACHE=$folder/modules GOCACHE=$folder/objects CGO_ENABLED=0 HOME=$folder
(cd "$(go mod download -json oras.land/oras@v1.3.6 | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')" &&
    go build -buildvcs=false -o "$folder/" ./cmd/oras)
python3 - <<'PY'
"""An OCI layout with one image of two platforms, made of nothing but the standard library."""
import hashlib, io, json, os, tarfile

os.makedirs("source/blobs/sha256")

def blob(data: bytes, media_type: str) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    open(f"source/blobs/sha256/{digest}", "wb").write(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

OCI = "application/vnd.oci.image"
children = []
for architecture in ("amd64", "arm64"):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(architecture))
    diff = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": [blob(layer.getvalue(), f"{OCI}.layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    children.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": children}
names = {"org.opencontainers.image.ref.name": "old", "io.containerd.image.name": "example.test/app:old"}
entry = {**blob(json.dumps(index).encode(), index["mediaType"]), "annotations": names}
json.dump({"schemaVersion": 2, "manifests": [entry]}, open("source/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open("source/oci-layout", "w"))
PY
./oras cp --from-oci-layout source:old --to-oci-layout target:new > /dev/null
entries=$(python3 - <<'PY'
import json
for each in json.load(open("target/index.json"))["manifests"]:
    notes = each.get("annotations", {})
    print(notes.get("org.opencontainers.image.ref.name", "-"), notes.get("io.containerd.image.name", "-"))
PY
)
said=$(skopeo copy oci:target dir:copy 2>&1 || true)
skopeo copy --quiet --all oci:source dir:before
skopeo copy --quiet --all oci:target:new dir:after
echo "entries of index.json, by tag and by containerd's name:"
echo "$entries"
echo "skopeo without a name: ${said##*msg=}"
[ "$entries" = "new example.test/app:old
- -
- -" ] || { echo "changed: other entries"; exit 1; }
[[ $said == *"more than one image in oci"* ]] || { echo "changed: skopeo takes it"; exit 1; }
echo "as described: one image of two platforms is three entries"
