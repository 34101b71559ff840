#!/bin/sh
# Starts the layer tool with a Python of the machine: start.sh COMMAND ARGUMENTS...
# It runs in an empty environment, so it uses nothing but the shell itself. On a remote worker
# DOCKER_NIX_PYTHON may name the Python.

here=${0%/*}
chosen=.docker-nix-cache/interpreter

python=${DOCKER_NIX_PYTHON:-}
if [ -n "$python" ]; then
    if ! [ -f "$python" ] || ! [ -x "$python" ]; then
        echo "error: [docker-nix].python, or docker_nix_python of the environment's target, is" \
            "$python, which is not there where this process ran" >&2
        exit 127
    fi
elif [ -f "$chosen" ]; then
    IFS= read -r python <"$chosen" || :
fi
for candidate in "$python" /usr/bin/python3 /usr/local/bin/python3 \
    /opt/homebrew/bin/python3 /run/current-system/sw/bin/python3; do
    if [ -f "$candidate" ] && [ -x "$candidate" ]; then
        # -B: the tool's own directory is read-only. utf8: the same on every machine. Not `python
        # DIRECTORY`, which would import a good deal more before it starts.
        exec "$candidate" -I -S -B -X utf8 -c \
            'import sys; sys.path.insert(0, sys.argv.pop(1)); from docker_nix.layer.tool.cli import main; main()' \
            "$here/tool" "$@"
    fi
done

echo "error: the layer tool found no Python where this process ran: install Python 3.8 or newer as" \
    "/usr/bin/python3 there, or set [docker-nix].python, or docker_nix_python of the environment's" \
    "target, to the path of one" >&2
exit 127
