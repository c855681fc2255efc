#!/usr/bin/env bash
# podman 4.3.1 (Debian 12): `podman save A B` without `-m` exits 0, writes A only, and gives A both names.
#
# `docker save A B` writes both images. A good guess for podman is both as well, or an error. It writes one
# image; manifest.json lists it once with RepoTags of A *and* of B. Whoever loads the archive then has B
# pointing to the content of A, without a word. `--multi-image-archive` (`-m`) writes both.
#
# Who meets this: whoever carries images to a network without internet in such an archive, and whoever reads
# one: names in an archive are claims, and only digests of content can be relied upon.
set -euo pipefail
folder=$(mktemp -d)
run() { "$folder/root/usr/bin/podman" --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }
trap 'run rmi --all --force >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
cd "$folder"
# Debian's package, unpacked where nothing else sees it; its libraries are those of a machine that can run podman.
apt-get download -qq podman=4.3.1+ds1-8+deb12u1+b3 2>/dev/null && dpkg -x podman_*.deb root
printf 'one' > one.txt && printf 'two' > two.txt
tar -cf one.tar one.txt && tar -cf two.tar two.txt
run import --quiet one.tar example.test/a:1 >/dev/null
run import --quiet two.tar example.test/b:1 >/dev/null
run save --quiet --output both.tar example.test/a:1 example.test/b:1
tar -xOf both.tar manifest.json | python3 -c '
import json, sys
images = json.load(sys.stdin)
print("images in the archive:", len(images), "names:", sorted(images[0]["RepoTags"]))
assert len(images) == 1, "both images are written now"
assert sorted(images[0]["RepoTags"]) == ["example.test/a:1", "example.test/b:1"], "the names have changed"
'
run save --quiet --multi-image-archive --output multi.tar example.test/a:1 example.test/b:1
tar -xOf multi.tar manifest.json | python3 -c '
import json, sys
images = json.load(sys.stdin)
print("with --multi-image-archive:", len(images))
assert len(images) == 2
'
run rmi --all --force >/dev/null
run load --quiet --input both.tar >/dev/null
a=$(run image inspect --format '{{.Id}}' example.test/a:1)
b=$(run image inspect --format '{{.Id}}' example.test/b:1)
echo "after loading: a is ${a:0:12}, b is ${b:0:12}"
[ "$a" = "$b" ] || { echo "changed: b has content of its own"; exit 1; }
echo "as described: one image under both names"
