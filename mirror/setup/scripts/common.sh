set -eu
export LC_ALL=C
umask 022

SCHEME='@SCHEME@'
ADDRESS='@ADDRESS@'
UPSTREAMS='@UPSTREAMS@'
MIRROR="$SCHEME://$ADDRESS"
BACKUP=before-registry-mirror

# ROOT is for images and tests: the files are written below that folder, and nothing is restarted.
ROOT=${ROOT:-}
CA=${CA:-}
DRY=false
UNDO=false
for argument in "$@"; do
    case $argument in
    --dry-run) DRY=true ;;
    --undo) UNDO=true ;;
    *) fail "unknown argument $argument; there are --dry-run and --undo" ;;
    esac
done
[ -n "$ROOT" ] || $DRY || [ "$(id -u)" = 0 ] || fail "run this as root: curl ... | sudo sh"
[ -z "$CA" ] || [ -r "$CA" ] || fail "CA=$CA cannot be read"
case ${ADDRESS%:*} in
127.* | localhost | '[::1]') LOOPBACK=true ;;
*) LOOPBACK=false ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
CHANGED=false

# Fail if a folder of the path is a link that leads out of ROOT, which may be an image that others made.
inside() { # path below ROOT
    base=$(cd -P "${ROOT:-/}" && pwd -P)
    [ "$base" != / ] || return 0
    above=$(dirname "$1")
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    case $(cd -P "$above" && pwd -P)/ in
    "$base"/*) ;;
    *) fail "$1 is not below $ROOT: a folder of it is a link to elsewhere" ;;
    esac
}

# Put the text of standard input into a file, which is kept beside it the first time.
put() { # path
    cat >"$scratch/new"
    place=$ROOT$1
    inside "$place"
    if [ -f "$place" ] && cmp -s "$scratch/new" "$place"; then
        say "as it should be: $place"
        return
    fi
    CHANGED=true
    if $DRY; then
        say "would write $place:"
        if [ -f "$place" ]; then diff -u "$place" "$scratch/new" || true; else cat "$scratch/new"; fi
        return
    fi
    mkdir -p "$(dirname "$place")"
    rm -f "$place.registry-mirror" # of a run that was killed, or a link
    if [ -f "$place" ]; then
        [ -e "$place.$BACKUP" ] || [ -e "$place.$BACKUP.none" ] || cp -p "$place" "$place.$BACKUP"
        cp -p "$place" "$place.registry-mirror"
    else
        [ -e "$place.$BACKUP" ] || : >"$place.$BACKUP.none"
    fi
    cat "$scratch/new" >"$place.registry-mirror"
    mv "$place.registry-mirror" "$place"
    say "written: $place"
}

# Restore what was there before the first run.
restore() { # path
    place=$ROOT$1
    inside "$place"
    if [ -e "$place.$BACKUP" ]; then
        mv "$place.$BACKUP" "$place"
        say "restored: $place"
    elif [ -e "$place.$BACKUP.none" ]; then
        rm -f "$place" "$place.$BACKUP.none"
        say "removed: $place"
    else
        return 0
    fi
    CHANGED=true
}

# Return whether a version is at least another one: at_least 2.1.9 2.2
at_least() {
    awk -v have="$1" -v want="$2" 'BEGIN {
        split(have, h, "."); split(want, w, ".")
        for (i = 1; i <= 3; i++) if (h[i] + 0 != w[i] + 0) exit !(h[i] + 0 > w[i] + 0)
    }'
}

version_of() { # program: the first version that it prints, or nothing
    "$1" --version 2>/dev/null | sed -n 's/.*[^0-9.]\([0-9][0-9]*\.[0-9][0-9.]*\).*/\1/p' | sed -n 1p
}

# Put the mirror in front of the hosts in a hosts.toml: lines of the mirror's entry are in $scratch/entry.
first_host() { # path of a hosts.toml
    if [ -f "$ROOT$1" ] && grep -Fq "[host.\"$MIRROR\"]" "$ROOT$1"; then
        cat "$ROOT$1"
    elif [ -f "$ROOT$1" ]; then
        awk -v entry="$scratch/entry" '
            function ours(line) { while ((getline line < entry) > 0) print line; print ""; done = 1 }
            /^[ \t]*\[host(\.|\])/ && !done { ours() }
            { print }
            END { if (!done) { print ""; ours() } }
        ' "$ROOT$1"
    else
        cat "$scratch/entry"
    fi
}
