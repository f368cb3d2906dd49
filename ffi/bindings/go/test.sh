#!/bin/sh
# Builds the package against the libkeystead that pkg-config finds, and runs its tests. `cargo xtask ffi-test` runs this.
#
#     PKG_CONFIG_PATH=… LD_LIBRARY_PATH=… KEYSTEAD_PLUGIN=/absolute/path/of/libkeystead_managed.so ./test.sh
#
# Takes Go 1.19 or newer with a C compiler; Debian's is installed where it is missing and this may do that. No module is fetched.
set -eu
cd "$(dirname "$0")"
. ../testing/build.sh
. ../testing/retry.sh
if ! command -v go >/dev/null; then
    install_go() {
        apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends golang-go
    }
    three_times install_go
fi
untidy=$(gofmt -l .)
if [ -n "$untidy" ]; then
    echo "not formatted by gofmt: $untidy" >&2
    exit 1
fi
export GOFLAGS=-mod=readonly GOPROXY=off
go vet ./...
# cgocheck=2: every pointer that reaches memory of C is looked at. -count=1: the library is not part of what Go caches by.
GODEBUG=cgocheck=2 go test -count=1 ./...
