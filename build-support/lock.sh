#!/bin/sh
# Locks 3rdparty/python/NAME.txt as NAME.lock, with the hashes of every platform's files.
#
#   build-support/lock.sh [--upgrade] [NAME...]
#
# Needs `uv` (pip install uv). Without --upgrade, versions that still fit stay as they are.
set -eu
cd "$(dirname "$0")/../3rdparty/python"

upgrade=
if [ "${1:-}" = --upgrade ]; then
    upgrade=$1
    shift
fi
[ $# -gt 0 ] || set -- $(basename -s .txt *.txt)

for name in "$@"; do
    version=3.9
    options=
    case $name in
        buildbox) version=3.11 options=--no-deps ;;
        buildgrid | services) version=3.11 ;;
        pytest) options="--constraints default.lock" ;;
    esac
    # Hashes are of all files of a version, whatever the platform; it only decides on markers.
    # The options keep the addresses of indexes out.
    uv pip compile --quiet $upgrade $options --generate-hashes --no-header --no-emit-index-url \
        --no-emit-find-links --python-version "$version" \
        --python-platform x86_64-unknown-linux-gnu --no-python-downloads \
        "$name.txt" --output-file "$name.lock"
done
