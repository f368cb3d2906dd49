#!/bin/sh
# Builds the wheel against the libkeystead that pkg-config finds, and installs it, with what its tests and its benchmark need, into
# an environment of its own in DIRECTORY/venv.
#
#     PKG_CONFIG_PATH=… ./install.sh DIRECTORY
#
# Takes python3 with venv, a C compiler, and the first time a package index.
set -eu
mkdir -p "$1"
cache=$(cd "$1" && pwd)
cd "$(dirname "$0")"
. ../testing/retry.sh

if ! "$cache/venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$cache/venv"
    python3 -m venv "$cache/venv"
fi
pip() { "$cache/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# From a copy, so that nothing of an older build goes into the wheel, and none of this one stays here.
rm -rf "$cache/source" "$cache/wheels"
mkdir -p "$cache/source"
cp -r README.md native.py pyproject.toml setup.py src "$cache/source"
three_times pip wheel --no-deps --wheel-dir "$cache/wheels" "$cache/source"
wheel=$(echo "$cache"/wheels/keystead-*.whl)
three_times pip install "$wheel[test]"
# The same version with other bytes in it is not installed again without being told.
pip install --no-deps --force-reinstall "$wheel"
