#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12): a second `skopeo copy` into the same oci-archive replaces it; into an `oci:` folder
# it adds.
#
# Both transports write an OCI image layout, whose index.json can hold many tags. A good guess is that
# `oci-archive:x.tar:two` adds to x.tar as `oci:x:two` adds to the folder x. The archive is written again with
# tag `two` alone, exit status 0, no warning: tag `one` and its blobs are gone.
#
# Who meets this: whoever collects images for a network without internet in one archive. Copy into an `oci:`
# folder, and make the tar at the end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 2>/dev/null && dpkg -x skopeo_*.deb root
skopeo() { "$folder/root/usr/bin/skopeo" --insecure-policy --tmpdir "$folder" "$@"; }
python3 - <<'PY'
"""One small OCI layout with two images, made of nothing but the standard library."""
import hashlib, io, json, os, tarfile

os.makedirs("source/blobs/sha256")

def blob(data: bytes, media_type: str) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    open(f"source/blobs/sha256/{digest}", "wb").write(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

manifests = []
for name in ("one", "two"):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    diff = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}, "config": {}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(layer.getvalue(), "application/vnd.oci.image.layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": name}})
json.dump({"schemaVersion": 2, "manifests": manifests}, open("source/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open("source/oci-layout", "w"))
PY
tags() { python3 -c 'import json, sys; print(sorted(m["annotations"]["org.opencontainers.image.ref.name"] for m in json.load(sys.stdin)["manifests"]))'; }
for name in one two; do
    skopeo copy --quiet "oci:source:$name" "oci-archive:target.tar:$name"
    skopeo copy --quiet "oci:source:$name" "oci:target:$name"
done
archive=$(tar -xOf target.tar index.json | tags)
layout=$(tags < target/index.json)
echo "oci-archive after two copies: $archive; oci folder after two copies: $layout"
[ "$layout" = "['one', 'two']" ] || { echo "changed: the folder holds $layout"; exit 1; }
[ "$archive" = "['two']" ] || { echo "changed: the archive holds $archive"; exit 1; }
echo "as described: the archive has the last image only"
