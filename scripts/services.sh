#!/bin/sh
# Installs the servers and the browser that some tests need: PostgreSQL, Redis, Chromium. Quick when all is there.
set -eu

required="postgresql redis-server chromium fonts-dejavu-core"
# Nicer pages in screenshots, where the distribution has it.
optional="fonts-inter"

fail() {
    echo "$*" >&2
    exit 1
}

is_installed() {
    dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

lacking() {
    for package in "$@"; do
        if ! is_installed "$package"; then printf '%s ' "$package"; fi
    done
}

available() {
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then printf '%s ' "$package"; fi
    done
}

command -v apt-get >/dev/null 2>&1 ||
    fail "make services knows Debian's apt-get only: install PostgreSQL, Redis and Chromium with this system's own means."

# The lists below are words on purpose.
# shellcheck disable=SC2046,SC2086
missing=$(lacking $required)
if [ -z "$missing" ]; then
    echo "PostgreSQL, Redis and Chromium are installed."
    exit 0
fi
[ "$(id -u)" -eq 0 ] || fail "Installing ${missing}needs root: run 'sudo make services'."

export DEBIAN_FRONTEND=noninteractive
echo "reading the package lists …"
apt-get update -qq
# shellcheck disable=SC2046,SC2086
missing="$missing$(available $(lacking $optional))"
echo "installing ${missing}…"
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
