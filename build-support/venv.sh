#!/bin/sh
# Virtual environments from a hash-checked lock, outside the tree, made once and shared by every checkout.
#
#   build-support/venv.sh NAME LOCK VERSION     prints the folder of the environment, made if need be
#
# or, sourced: find_python, venv_dir and make_venv. VERSION is a Python version such as 3.9.

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

python_works() {
    "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$2" \
        >/dev/null 2>&1 </dev/null
}

# find_python VERSION OVERRIDE: sets PYTHON. Each candidate is run, because a pyenv shim is on PATH
# for every version that pyenv knows, and fails for those that are not active.
find_python() {
    if [ -n "$2" ]; then
        PYTHON=$(command -v -- "$2") && python_works "$PYTHON" "$1" ||
            die "PANTS_PYTHON is '$2', which is not a Python $1 that runs. Point it at one, or unset it."
        return 0
    fi
    old_ifs=$IFS
    IFS=:
    set -f
    dirs=
    for dir in $PATH; do
        [ -x "$dir/python$1" ] && dirs="$dirs:$dir/python$1"
    done
    for dir in $PATH; do
        [ -x "$dir/python3" ] && dirs="$dirs:$dir/python3"
    done
    set +f
    IFS=$old_ifs
    for PYTHON in "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1".*/bin/python; do
        [ -x "$PYTHON" ] && dirs="$dirs:$PYTHON"
    done
    IFS=:
    set -f
    for PYTHON in $dirs; do
        if [ -n "$PYTHON" ] && python_works "$PYTHON" "$1"; then
            set +f
            IFS=$old_ifs
            return 0
        fi
    done
    die "no Python $1 found: not as 'python$1' or 'python3' on PATH, nor among pyenv's versions.
Install one (\`pyenv install $1\`, \`uv python install $1\`, \`brew install python@$1\`, or your
distribution's python$1 and python$1-venv packages), or set PANTS_PYTHON to where it is."
}

# venv_dir NAME LOCK VERSION OVERRIDE: sets VENV. Runs on every start of Pants, so it starts no Python.
venv_dir() {
    cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
    [ -n "$cache" ] || die "neither HOME nor XDG_CACHE_HOME is set: there is no place for '$1'."
    if command -v sha256sum >/dev/null; then
        key=$( { cat "$2"; printf %s "$3 $4"; } | sha256sum)
    else
        key=$( { cat "$2"; printf %s "$3 $4"; } | shasum -a 256)
    fi
    key=${key%% *}
    [ ${#key} = 64 ] || die "cannot hash $2: neither 'sha256sum' nor 'shasum' works."
    # The platform, for home folders that several machines share.
    platform=$(uname -sm)
    VENV=$(printf '%s/docker-nix/%s-py%s-%s-%s-%.16s' \
        "$cache" "$1" "$3" "${platform% *}" "${platform#* }" "$key")
}

# make_venv NAME LOCK VERSION OVERRIDE [HOOK]: makes VENV unless it is there. HOOK is called with the
# folder before anybody sees it. The environment grows under another name and is renamed when it is
# complete: two first starts, a killed one and a full disk never leave half of one.
make_venv() {
    venv_dir "$1" "$2" "$3" "$4"
    [ -x "$VENV/bin/python" ] && return 0
    find_python "$3" "$4"
    mkdir -p "${VENV%/*}" || die "cannot create ${VENV%/*}. Set XDG_CACHE_HOME to a folder you can write to."
    find "${VENV%/*}" -maxdepth 1 -name '*.tmp.*' -mtime +1 -exec rm -rf {} + 2>/dev/null || true
    say "Setting up $1 in $VENV (once)."
    (
        tmp=$(mktemp -d "$VENV.tmp.XXXXXX") || exit 1
        trap 'rm -rf "$tmp"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT
        # pip itself does not read this variable, which everything else does.
        if [ -z "${PIP_CERT:-}${REQUESTS_CA_BUNDLE:-}" ] && [ -f "${SSL_CERT_FILE:-}" ]; then
            export PIP_CERT="$SSL_CERT_FILE"
        fi
        export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
        umask 022
        "$PYTHON" -m venv "$tmp" >&2 || {
            say "$PYTHON cannot make virtual environments (on Debian: apt install python$3-venv)."
            exit 1
        }
        "$tmp/bin/python" -m pip install -qq --require-hashes --no-deps -r "$2" >&2 || exit 1
        if [ -n "${5:-}" ]; then
            "$5" "$tmp" || exit 1
        fi
        "$tmp/bin/python" - "$tmp" "$VENV" <<'EOF' || exit 1
import os, shutil, sys

tmp, final = sys.argv[1:]
# Scripts name their interpreter by its path.
for entry in os.scandir(os.path.join(tmp, "bin")):
    if entry.is_file(follow_symlinks=False):
        with open(entry.path, "r+b") as script:
            text = script.read()
            if os.fsencode(tmp) in text:
                script.seek(0)
                script.write(text.replace(os.fsencode(tmp), os.fsencode(final)))
                script.truncate()
if os.path.lexists(final) and not os.access(os.path.join(final, "bin", "python"), os.X_OK):
    shutil.rmtree(final)  # its Python was uninstalled
try:
    os.rename(tmp, final)
except OSError:
    if not os.access(os.path.join(final, "bin", "python"), os.X_OK):
        raise
    # Somebody else was faster.
EOF
    ) || die "could not set up $1 (see above; is the package index reachable, and the disk not full?)."
}

case ${0##*/} in
    venv.sh)
        set -eu
        [ $# = 3 ] || die "usage: build-support/venv.sh NAME LOCK VERSION"
        make_venv "$1" "$2" "$3" ""
        printf '%s\n' "$VENV"
        ;;
esac
