#!/bin/sh
# Point Podman, Buildah, Skopeo and CRI-O at the mirror @SCHEME@://@ADDRESS@ (registry-mirror @VERSION@).
#
#   curl -fsSL @SCHEME@://@ADDRESS@/setup/podman.sh -o podman.sh; less podman.sh; sudo sh podman.sh
#   sh podman.sh --dry-run     show what would be written
#   sh podman.sh --undo        restore what was there before
#   CA=ca.crt sh podman.sh     the mirror has a certificate of this CA, which the machine does not know
#
# One file of its own is written. A second run changes nothing.

say() { printf '%s\n' "$*"; }
fail() {
    printf 'podman.sh: %s\n' "$*" >&2
    exit 1
}

@COMMON@

CONFIG=/etc/containers/registries.conf.d/50-registry-mirror.conf
CERTIFICATES=/etc/containers/certs.d
TAB=$(printf '\t')

if $UNDO; then
    restore $CONFIG
    restore "$CERTIFICATES/$ADDRESS/ca.crt"
else
    for file in "$ROOT/etc/containers/registries.conf" "$ROOT"/etc/containers/registries.conf.d/*.conf; do
        [ -f "$file" ] && [ "$file" != "$ROOT$CONFIG" ] || continue
        for upstream in $UPSTREAMS; do
            if grep -Eq "^[ $TAB]*(prefix|location)[ $TAB]*=[ $TAB]*['\"]$upstream['\"]" "$file"; then
                fail "$file has an entry for $upstream, and one replaces the other: \
remove it, or use registry-mirror setup podman, which keeps its mirrors"
            fi
        done
    done
    {
        printf '# Written by %s/setup/podman.sh.\n' "$MIRROR"
        for upstream in $UPSTREAMS; do
            printf '\n[[registry]]\nprefix = "%s"\nlocation = "%s"\n' "$upstream" "$upstream"
            printf '\n[[registry.mirror]]\nlocation = "%s/%s"\n' "$ADDRESS" "$upstream"
            [ "$SCHEME" = https ] || printf 'insecure = true\n'
        done
    } >"$scratch/mirror.conf"
    [ -z "$CA" ] || put "$CERTIFICATES/$ADDRESS/ca.crt" <"$CA"
    put $CONFIG <"$scratch/mirror.conf"
fi
