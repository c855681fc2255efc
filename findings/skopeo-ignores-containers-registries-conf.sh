#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12): CONTAINERS_REGISTRIES_CONF is ignored; podman 4.3.1 of the same release reads it.
#
# Both use the library containers/image, so a good guess is that both read the variable, as newer versions of the
# library do by themselves. In this release the variable is Podman's own: skopeo goes on with
# /etc/containers/registries.conf without a word, past the mirrors of the file that the variable names. It has an
# option instead, --registries-conf, which --help does not list.
#
# Who meets this: tests and scripts that try a mirror without changing the machine. `skopeo copy` then succeeds, from
# the registry itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
# Debian's packages, unpacked where nothing else sees them; their libraries are those of a machine that has both.
apt-get download -qq podman=4.3.1+ds1-8+deb12u1+b3 skopeo=1.9.3+ds1-1+b10 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" root; done
# Nothing listens on either port: whether the mirror was tried can be read from the failure.
cat >registries.conf <<'CONF'
[[registry]]
location = "127.0.0.1:8"
insecure = true
[[registry.mirror]]
location = "127.0.0.1:9"
insecure = true
CONF
tried() { # command...: is the mirror named in what the command says?
    CONTAINERS_REGISTRIES_CONF=$folder/registries.conf "$@" >said 2>&1 || true
    grep -q '127.0.0.1:9' said && echo yes || echo no
}
image=127.0.0.1:8/library/alpine:1
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >policy.json
podman=(root/usr/bin/podman --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs)
by_podman=$(tried "${podman[@]}" pull --signature-policy policy.json "$image")
skopeo=(root/usr/bin/skopeo --insecure-policy)
by_variable=$(tried "${skopeo[@]}" copy "docker://$image" dir:copy)
by_option=$(tried "${skopeo[@]}" --registries-conf registries.conf copy "docker://$image" dir:copy)
listed=$(root/usr/bin/skopeo --help | grep -c registries-conf || true)
echo "podman with CONTAINERS_REGISTRIES_CONF: the mirror is tried: $by_podman"
echo "skopeo with CONTAINERS_REGISTRIES_CONF: the mirror is tried: $by_variable"
echo "skopeo with --registries-conf: the mirror is tried: $by_option; lines about it in --help: $listed"
[ "$by_podman $by_variable $by_option $listed" = "yes no yes 0" ]
