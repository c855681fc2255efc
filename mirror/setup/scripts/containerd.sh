#!/bin/sh
# Point containerd on this machine at the mirror @SCHEME@://@ADDRESS@ (registry-mirror @VERSION@), for all registries.
#
#   curl -fsSL @SCHEME@://@ADDRESS@/setup/containerd.sh -o containerd.sh; less containerd.sh; sudo sh containerd.sh
#   sh containerd.sh --dry-run     show what would be written
#   sh containerd.sh --undo        restore what was there before
#   CA=ca.crt sh containerd.sh     the mirror has a certificate of this CA, which the machine does not know
#   VERSION=1.7.24 sh ...          the version of containerd, where its program is not on this machine
#
# Other hosts in hosts.toml stay, below the mirror. A second run changes nothing.

say() { printf '%s\n' "$*"; }
fail() {
    printf 'containerd.sh: %s\n' "$*" >&2
    exit 1
}

@COMMON@

CONFIG=/etc/containerd/config.toml
FOLDER=/etc/containerd/certs.d
TAB=$(printf '\t')
VERSION=${VERSION:-$(version_of containerd)}

# Folders of the mirror's registries, which containerd reads in the place of the default.
folders() {
    printf '%s\n' _default
    for upstream in $UPSTREAMS; do
        [ ! -d "$ROOT$FOLDER/$upstream" ] || printf '%s\n' "$upstream"
    done
}

# For Kubernetes containerd must be told to read hosts.toml.
with_config_path() {
    if [ ! -f "$ROOT$CONFIG" ] && [ -n "$VERSION" ] && at_least "$VERSION" 2; then
        printf 'version = 3\n\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "%s"\n' $FOLDER
    elif [ ! -f "$ROOT$CONFIG" ]; then
        printf 'version = 2\n\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "%s"\n' $FOLDER
    elif grep -Eq "^[ $TAB]*config_path[ $TAB]*=[ $TAB]*[\"'][^\"']" "$ROOT$CONFIG"; then
        if [ -z "$VERSION" ] || at_least "$VERSION" 2; then # which takes two folders, A:B, for the name of one
            sed "s|^\([ $TAB]*config_path[ $TAB]*=[ $TAB]*[\"']$FOLDER\):[^\"']*|\1|" "$ROOT$CONFIG"
        else
            cat "$ROOT$CONFIG"
        fi
    elif grep -Eq "^[ $TAB]*\[plugins\..*\.registry\]" "$ROOT$CONFIG"; then
        awk -v folder=$FOLDER '
            /^[ \t]*config_path[ \t]*=/ { next }
            { print }
            /^[ \t]*\[plugins\..*\.registry\]/ && !done { printf "  config_path = \"%s\"\n", folder; done = 1 }
        ' "$ROOT$CONFIG"
    else
        cat "$ROOT$CONFIG"
        case $(sed -n 's/^version[ \t]*=[ \t]*\([0-9]*\).*/\1/p' "$ROOT$CONFIG") in
        [3-9]) plugin='"io.containerd.cri.v1.images"' ;;
        2) plugin='"io.containerd.grpc.v1.cri"' ;;
        *) plugin=cri ;;
        esac
        printf '\n[plugins.%s.registry]\n  config_path = "%s"\n' "$plugin" $FOLDER
    fi
}

if $UNDO; then
    for folder in $(folders); do restore "$FOLDER/$folder/hosts.toml"; done
    restore $FOLDER/registry-mirror-ca.crt
    restore $CONFIG
    RESTART=$CHANGED
else
    if [ -f "$ROOT$CONFIG" ] && grep -Eq "^[ $TAB]*\[plugins\..*registry\.mirrors" "$ROOT$CONFIG"; then
        fail "$ROOT$CONFIG has registry.mirrors, the old form, which excludes hosts.toml: move these lists first"
    fi
    {
        printf '[host."%s"]\n' "$MIRROR"
        if [ -n "$VERSION" ] && at_least "$VERSION" 2.2; then
            printf '  capabilities = ["pull", "resolve", "referrers"]\n'
        else # older ones ignore the whole file at "referrers"
            printf '  capabilities = ["pull", "resolve"]\n'
        fi
        [ -z "$CA" ] || printf '  ca = "%s/registry-mirror-ca.crt"\n' $FOLDER
    } >"$scratch/entry"
    with_config_path >"$scratch/config.toml"
    if [ -z "$ROOT" ] && command -v containerd >/dev/null; then
        containerd --config "$scratch/config.toml" config dump >"$scratch/said" 2>&1 ||
            fail "containerd would not start with the new $CONFIG: $(cat "$scratch/said")"
    fi
    put $CONFIG <"$scratch/config.toml"
    RESTART=$CHANGED
    [ -z "$CA" ] || put $FOLDER/registry-mirror-ca.crt <"$CA"
    for folder in $(folders); do
        first_host "$FOLDER/$folder/hosts.toml" >"$scratch/hosts.toml"
        put "$FOLDER/$folder/hosts.toml" <"$scratch/hosts.toml"
    done
fi
if $RESTART && ! $DRY && [ -z "$ROOT" ]; then
    say "Then: systemctl restart containerd (running containers go on)"
fi
