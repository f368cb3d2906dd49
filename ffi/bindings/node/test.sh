#!/bin/sh
# Builds the package against the libkeystead that pkg-config finds, and runs its tests. `cargo xtask ffi-test` runs this.
#
#     PKG_CONFIG_PATH=… KEYSTEAD_PLUGIN=/absolute/path/of/libkeystead_managed.so ./test.sh
#
# Takes Node 20 or newer with npm, and the first time a package registry.
set -eu
cd "$(dirname "$0")"
. ../testing/build.sh
. ../testing/retry.sh
if ! cmp -s package-lock.json node_modules/.installed-lock; then
    three_times npm ci --ignore-scripts --no-audit --no-fund
    cp package-lock.json node_modules/.installed-lock
fi
npm run build
npm test
