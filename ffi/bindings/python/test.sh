#!/bin/sh
# Builds the wheel against the libkeystead that pkg-config finds, and runs its tests. `cargo xtask ffi-test` runs this.
#
#     PKG_CONFIG_PATH=… KEYSTEAD_PLUGIN=/absolute/path/of/libkeystead_managed.so ./test.sh
#
# Takes python3 with venv, a C compiler, and the first time a package index.
set -eu
cd "$(dirname "$0")"
. ../testing/build.sh
./install.sh "$build/python"
"$build/python/venv/bin/python" -m mypy
"$build/python/venv/bin/python" -m pytest --quiet
