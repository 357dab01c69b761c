#!/bin/sh
# Makes .venv and installs nbdebug into it, editable, with the extra named ("demo" or "dev") at the versions of
# constraints.txt. PYTHON=/path/to/python picks the interpreter; otherwise the first one found from 3.11 on.
set -eu
extra=$1
venv=.venv

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || { echo "PYTHON=$PYTHON is not a working Python 3.11 or later." >&2; exit 1; }
        echo "$PYTHON"
        return
    fi
    for python in python3 python python3.14 python3.13 python3.12 python3.11; do
        if fits "$python"; then
            echo "$python"
            return
        fi
    done
    echo "nbdebug needs Python 3.11 or later, and none was found on PATH. Install one, or name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
}

if ! fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$("$python" --version) is here, but its venv module is not. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
    echo "Making $venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv"
fi

echo "Installing nbdebug[$extra] into $venv; the first time takes a few minutes ..."
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extra]"
