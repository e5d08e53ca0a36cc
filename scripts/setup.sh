#!/bin/sh
# Makes .venv and installs the pinned packages into it; does nothing when both are as they should be.
# setup.sh: what running needs.  setup.sh --dev: also what tests and checks need.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "$*" >&2
    exit 1
}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || fail "PYTHON is '$PYTHON', which is no Python 3.11 to 3.14: set it to one, or leave it out."
        python=$PYTHON
        return
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if fits "$python"; then return; fi
    done
    fail "OpenVibe needs Python 3.11 to 3.14, and none is on PATH: install one (Debian: apt-get install python3 python3-venv), or name it with PYTHON=/path/to/python3."
}

make_environment() {
    find_python
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python cannot make environments: install the missing part (Debian: apt-get install python3-venv) and try again."
    echo "making the environment .venv with $("$python" --version) …"
    "$python" -m venv --clear .venv || fail ".venv could not be made: see above, and try again."
}

fingerprint() {
    .venv/bin/python -c 'import hashlib, pathlib, sys
files = b"".join(pathlib.Path(name).read_bytes() for name in sys.argv[1:])
print(hashlib.sha256(sys.version.encode() + files).hexdigest())' constraints.txt "$@"
}

# Dots show that something happens; they end with this script, however it ends.
show_dots() {
    while sleep 2 && kill -0 $$ 2>/dev/null; do printf '.'; done &
    dots=$!
    trap 'kill $dots 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

hide_dots() {
    kill $dots 2>/dev/null || true
    wait $dots 2>/dev/null || true
    trap - EXIT INT TERM
    echo
}

install() {
    count=$(cat "$@" | grep -c '==' || true)
    printf 'installing %s packages, about a minute the first time ' "$count"
    # Written only at the end: an installation that breaks off is done again.
    rm -f .venv/.stamp-run .venv/.stamp-dev
    for file in "$@"; do set -- "$@" -r "$file"; shift; done
    show_dots
    status=0
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --progress-bar off "$@" \
        >.venv/setup.log 2>&1 || status=$?
    # The command `openvibe`, and the entry points by which it finds the site.
    if [ "$status" -eq 0 ]; then
        .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --progress-bar off \
            --no-deps --no-build-isolation --editable . >>.venv/setup.log 2>&1 || status=$?
    fi
    hide_dots
    if [ "$status" -ne 0 ]; then
        tail -n 20 .venv/setup.log >&2
        fail "The packages could not be installed: see above (all of it in .venv/setup.log), and try again."
    fi
}

stamp=.venv/.stamp-run
files=requirements.txt
case "${1:-}" in
"") ;;
--dev)
    stamp=.venv/.stamp-dev
    files="requirements.txt requirements-dev.txt"
    ;;
*) fail "setup.sh knows --dev only, not '$1'." ;;
esac

if ! fits .venv/bin/python; then make_environment; fi

# The file names are ours and hold no spaces.
# shellcheck disable=SC2086
wanted=$(fingerprint $files)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    # shellcheck disable=SC2086
    install $files
    fingerprint requirements.txt >.venv/.stamp-run
    echo "$wanted" >"$stamp"
fi
