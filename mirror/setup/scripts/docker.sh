#!/bin/sh
# Point Docker on this machine at the mirror @SCHEME@://@ADDRESS@ (registry-mirror @VERSION@).
#
#   curl -fsSL @SCHEME@://@ADDRESS@/setup/docker.sh -o docker.sh; less docker.sh; sudo sh docker.sh
#   sh docker.sh --dry-run     show what would be written
#   sh docker.sh --undo        restore what was there before
#   CA=ca.crt sh docker.sh     the mirror has a certificate of this CA, which the machine does not know
#
# /etc/docker/daemon.json keeps its other settings. A second run changes nothing.

say() { printf '%s\n' "$*"; }
fail() {
    printf 'docker.sh: %s\n' "$*" >&2
    exit 1
}

@COMMON@

CONFIG=/etc/docker/daemon.json
CERTIFICATES=/etc/docker/certs.d

# Put a text in front of a list of daemon.json, which is created if there is none.
prepend() { # key, text
    awk -v key="$1" -v text="$2" '
        { whole = whole $0 "\n" }
        END {
            if (whole !~ /[^ \t\r\n]/) whole = "{}\n"
            if (match(whole, "\"" key "\"[ \t\r\n]*:[ \t\r\n]*\\[[ \t\r\n]*")) {
                at = RSTART + RLENGTH
                rest = substr(whole, at)
                comma = rest ~ /^\]/ ? "" : ", "
                printf "%s\"%s\"%s%s", substr(whole, 1, at - 1), text, comma, rest
            } else if (match(whole, /[{][ \t\r\n]*/)) {
                rest = substr(whole, RSTART + RLENGTH)
                comma = rest ~ /^[}]/ ? "\n" : ",\n  "
                printf "{\n  \"%s\": [\"%s\"]%s%s", key, text, comma, rest
            } else exit 1
        }
    '
}

if $UNDO; then
    restore $CONFIG
    restore "$CERTIFICATES/$ADDRESS/ca.crt"
    restore $CERTIFICATES/docker.io/registry-mirror-ca.crt
else
    case " $UPSTREAMS " in
    " docker.io "*) ;;
    *) fail "this mirror does not mirror docker.io by default, and Docker asks mirrors for docker.io only" ;;
    esac
    for file in "$ROOT/etc/default/docker" "$ROOT/etc/systemd/system/docker.service" \
        "$ROOT"/etc/systemd/system/docker.service.d/*.conf "$ROOT/lib/systemd/system/docker.service"; do
        if [ -f "$file" ] && sed 's/^#.*//' "$file" | grep -Eq -e '--(registry-mirror|insecure-registry)[ =]'; then
            fail "$file starts dockerd with --registry-mirror or --insecure-registry, and dockerd refuses to start \
with a setting both there and in $CONFIG: move it into $CONFIG first"
        fi
    done
    if [ -f "$ROOT$CONFIG" ]; then cat "$ROOT$CONFIG"; else printf '{}\n'; fi >"$scratch/0"
    if grep -Fq -e "\"$MIRROR\"" -e "\"$MIRROR/\"" "$scratch/0"; then
        cp "$scratch/0" "$scratch/1"
    else
        prepend registry-mirrors "$MIRROR" <"$scratch/0" >"$scratch/1" || fail "$ROOT$CONFIG is not JSON"
    fi
    if [ "$SCHEME" = https ] || $LOOPBACK || grep -Fq "\"$ADDRESS\"" "$scratch/1"; then
        cp "$scratch/1" "$scratch/daemon.json"
    else
        prepend insecure-registries "$ADDRESS" <"$scratch/1" >"$scratch/daemon.json"
    fi
    if dockerd --help 2>/dev/null | grep -q -e --validate; then
        dockerd --validate --config-file "$scratch/daemon.json" >"$scratch/said" 2>&1 ||
            fail "Docker would not start with the new $CONFIG: $(cat "$scratch/said")"
    fi
    if [ -n "$CA" ]; then
        put "$CERTIFICATES/$ADDRESS/ca.crt" <"$CA"
        # Docker's containerd image store reads the CA of a mirror here.
        put $CERTIFICATES/docker.io/registry-mirror-ca.crt <"$CA"
    fi
    put $CONFIG <"$scratch/daemon.json"
fi
if $CHANGED && ! $DRY && [ -z "$ROOT" ]; then
    if command -v systemctl >/dev/null && systemctl reload docker; then
        say "Docker has read it: docker info lists the mirror."
    else
        say "Restart Docker, or send it SIGHUP: then docker info lists the mirror."
    fi
fi
