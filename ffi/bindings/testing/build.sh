# Sourced by each binding's test.sh: builds the plugin that asks the application for tokens.
build=$(cd ../../.. && pwd)/.cache/bindings
mkdir -p "$build"
made=$build/minting_plugin.$$.so
# shellcheck disable=SC2046 # flags are words
cc -Wall -Wextra -Werror -shared -fPIC $(pkg-config --cflags keystead) ../testing/minting_plugin.c -o "$made"
# Renamed over: another test that runs meanwhile has the old one loaded.
mv "$made" "$build/minting_plugin.so"
export KEYSTEAD_MINTING_PLUGIN="$build/minting_plugin.so"
