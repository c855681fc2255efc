#!/bin/sh
# Point k3s or RKE2 on this machine at the mirror @SCHEME@://@ADDRESS@ (registry-mirror @VERSION@), for all registries.
#
#   curl -fsSL @SCHEME@://@ADDRESS@/setup/k3s.sh -o k3s.sh; less k3s.sh; sudo sh k3s.sh
#   sh k3s.sh --dry-run     show what would be written
#   sh k3s.sh --undo        restore what was there before
#   CA=ca.crt sh k3s.sh     the mirror has a certificate of this CA, which the machine does not know
#
# A registries.yaml that is there stays as it is: the script says what to add. A second run changes nothing.

say() { printf '%s\n' "$*"; }
fail() {
    printf 'k3s.sh: %s\n' "$*" >&2
    exit 1
}

@COMMON@

NAME=k3s
[ ! -d "$ROOT/etc/rancher/rke2" ] || [ -d "$ROOT/etc/rancher/k3s" ] || NAME=rke2
CONFIG=/etc/rancher/$NAME/registries.yaml
AUTHORITY=/etc/rancher/$NAME/registry-mirror-ca.crt

if $UNDO; then
    restore $CONFIG
    restore $AUTHORITY
else
    {
        printf 'mirrors:\n  "*":\n    endpoint:\n      - "%s"\n' "$MIRROR"
        if [ -n "$CA" ]; then
            printf 'configs:\n  "%s":\n    tls:\n      ca_file: %s\n' "$ADDRESS" $AUTHORITY
        fi
    } >"$scratch/registries.yaml"
    if [ ! -f "$ROOT$CONFIG" ] || cmp -s "$scratch/registries.yaml" "$ROOT$CONFIG"; then
        [ -z "$CA" ] || put $AUTHORITY <"$CA"
        put $CONFIG <"$scratch/registries.yaml"
    elif grep -Fq "$MIRROR" "$ROOT$CONFIG"; then
        say "$ROOT$CONFIG names the mirror already, and stays as it is"
    else
        say "Add this to $ROOT$CONFIG, or use registry-mirror setup $NAME, which can:"
        cat "$scratch/registries.yaml"
        exit 1
    fi
fi
if $CHANGED && ! $DRY && [ -z "$ROOT" ]; then
    say "Then: systemctl restart $NAME (k3s-agent on an agent; rke2-server or rke2-agent)"
fi
