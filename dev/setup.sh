#!/usr/bin/env bash
# Makes .venv from requirements-dev.lock with uv, which it fetches into .uv/ first.
# plain pip needs minutes for Airflow's dependencies; uv needs seconds.
# Usage: dev/setup.sh [uv]    with "uv": stop once uv is there
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "Python 3.11 or newer is needed; '$python' is $("$python" --version 2>&1 || echo 'not there'). Try: make PYTHON=python3.12 …" >&2
    exit 1
}

[ -w . ] || {
    echo "Nothing can be written to $PWD. Make the checkout yours and writable, or clone it elsewhere." >&2
    exit 1
}
# A user without a home has nowhere to keep downloads.
cache=${UV_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/uv}
{ mkdir -p "$cache" && [ -w "$cache" ]; } 2>/dev/null || export UV_CACHE_DIR="$PWD/.uv/cache"

if [ "$(.uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    echo "Fetching uv $UV_VERSION …"
    rm -rf .uv
    "$python" -m venv .uv || {
        echo "Python's venv module does not work here (on Debian and Ubuntu: apt install python3-venv)." >&2
        exit 1
    }
    .uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi
[ "${1:-}" != uv ] || exit 0

echo "Installing the pinned packages into .venv …"
# An environment that the caller has active must not leak into this one.
unset VIRTUAL_ENV PYTHONPATH PYTHONHOME
.uv/bin/uv venv --quiet --clear --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
[ -t 2 ] || quiet=--quiet # its list of packages is for somebody who watches
# shellcheck disable=SC2086 # an empty one is no argument
.uv/bin/uv pip install ${quiet:-} --python .venv/bin/python --require-hashes --requirement requirements-dev.lock
touch .venv/.installed
