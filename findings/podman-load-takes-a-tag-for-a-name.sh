#!/usr/bin/env bash
# podman 4.3.1 (Debian 12): `podman load` of an archive that skopeo wrote for the tag v1 makes the image localhost/v1:latest.
#
# The OCI image layout keeps the tag alone in `org.opencontainers.image.ref.name`, and `skopeo copy ... oci-archive:
# FILE:v1` writes that. A good guess is an image without a repository, a question for its name, or the file's name with
# the tag v1. podman takes the tag for a repository: each image that was carried as v1 becomes localhost/v1:latest, and
# the second takes the name from the first, which has no name from then on. Exit status 0, without a warning.
#
# Who meets this: people who carry images to a network without internet in OCI archives. A full name in the annotation
# (host/repository:tag) is kept as it is.
set -euo pipefail
folder=$(mktemp -d)
run() { "$folder/root/usr/bin/podman" --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }
trap 'run rmi --all --force >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 podman=4.3.1+ds1-8+deb12u1+b3 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
skopeo() { "$folder/root/usr/bin/skopeo" --insecure-policy --tmpdir "$folder" "$@"; }
for name in first second; do
    echo "$name" > "$name.txt" && tar -cf "$name.tar" "$name.txt"
    run import --quiet "$name.tar" "example.test/$name:v1" >/dev/null
    run save --quiet --format oci-dir --output "$name.dir" "example.test/$name:v1"
    skopeo copy --quiet "oci:$name.dir" "oci-archive:$name.oci:v1"
done
run rmi --all --force >/dev/null
for name in first second; do
    run load --quiet --input "$name.oci"
done
run images --format '{{.Repository}}:{{.Tag}}' | sort > seen
cat seen
printf '%s\n' '<none>:<none>' 'localhost/v1:latest' > expected
diff expected seen || { echo "changed"; exit 1; }
skopeo copy --quiet oci:second.dir oci-archive:full.oci:example.test/second:v1
run load --quiet --input full.oci | grep -Fq example.test/second:v1 || { echo "changed: a full name is not kept"; exit 1; }
echo "as described"
