#!/usr/bin/env bash
# What the tests need beside Python's packages. PostgreSQL and, at need, Valkey come from their wheels.
set -euo pipefail

OLDEST_GIT=2.38

found=$(git version 2> /dev/null | awk '{ print $3 }') || true
if [ -z "$found" ]; then
    echo "error: git was not found: install git $OLDEST_GIT or newer." >&2
    exit 1
fi
if [ "$(printf '%s\n' "$OLDEST_GIT" "$found" | sort -V | head -n 1)" != "$OLDEST_GIT" ]; then
    echo "error: git is $found: install git $OLDEST_GIT or newer." >&2
    exit 1
fi

missing=()
command -v redis-server > /dev/null || missing+=(redis-server)
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' > /dev/null || missing+=(libfaketime)
command -v ip > /dev/null || missing+=(iproute2)

install_missing() {
    # RUNLEVEL=1 keeps Debian's packages from starting a server: the tests start their own, on private sockets.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    timeout 120 apt-get update -qq && timeout 120 apt-get install -qq --no-install-recommends "${missing[@]}"
}

if [ ${#missing[@]} -gt 0 ]; then
    if ! { [ "$(id -u)" -eq 0 ] && command -v apt-get && install_missing; } &> /dev/null; then
        echo "${missing[*]} could not be installed: Valkey from its wheel stands in for Redis; \`make chaos\` says what it does without."
    fi
fi
