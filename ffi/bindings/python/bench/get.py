"""What a get of 1 KiB costs through Python, beside the same through C, in one run: at most 3 µs more.

    python bench/get.py [--json]

The library is the one inside of the package, built for release, for both: a loop in C is compiled here and given the functions' addresses. The
two take turns, and of each the fastest round counts, since what disturbs only makes slower.
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cffi  # type: ignore[import-untyped]

import keystead
from keystead._native import ffi, lib

ROUNDS, CALLS = 600, 200
MOST_US = 3.0

LOOP = """
#include <stddef.h>
#include <stdint.h>

typedef int32_t (*get_function)(void *, const char *, size_t, uint32_t, void **, void **);
typedef size_t (*len_function)(void *);
typedef void (*free_function)(void *);

static size_t gets(uintptr_t get, uintptr_t len, uintptr_t release, uintptr_t organization, int calls)
{
    size_t bytes = 0;
    for (int call = 0; call < calls; call++) {
        void *secret = NULL, *error = NULL;
        if (((get_function)get)((void *)organization, "bench/1KiB", 10, 0, &secret, &error) != 0) return 0;
        bytes += ((len_function)len)(secret);
        ((free_function)release)(secret);
    }
    return bytes;
}
"""


def compiled(directory: str) -> Any:
    builder = cffi.FFI()
    builder.cdef("size_t gets(uintptr_t, uintptr_t, uintptr_t, uintptr_t, int);")
    builder.set_source("keystead_bench_loop", LOOP, extra_compile_args=["-O2"])
    found = importlib.util.spec_from_file_location("keystead_bench_loop", builder.compile(tmpdir=directory))
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.lib


def undisturbed() -> None:
    """Real-time priority, where that is allowed: other programs wait."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    except PermissionError:
        print(
            "without real-time priority, which is not allowed here: the figures are noise while the machine is busy",
            file=sys.stderr,
        )


def main() -> int:
    undisturbed()
    with tempfile.TemporaryDirectory() as directory:
        loop = compiled(directory)
        managed = keystead.Backend.managed(Path(directory) / "keyring")
        with keystead.Store.create(Path(directory) / "store", backends=[managed]) as store:
            acme = store.create_organization("acme")
            acme.put("bench/1KiB", bytes(1024))
            functions = [lib.keystead_get, lib.keystead_secret_len, lib.keystead_secret_free]
            addresses = [int(ffi.cast("uintptr_t", function)) for function in functions]
            organization = int(ffi.cast("uintptr_t", acme._handle))

            def in_c() -> None:
                assert loop.gets(*addresses, organization, CALLS) == 1024 * CALLS

            def in_python() -> None:
                for _ in range(CALLS):
                    acme.get("bench/1KiB")

            fastest = {in_c: float("inf"), in_python: float("inf")}
            for _ in range(ROUNDS):
                for run in fastest:
                    began = time.perf_counter()
                    run()
                    fastest[run] = min(fastest[run], (time.perf_counter() - began) / CALLS * 1e6)
    if "--json" in sys.argv:
        print(json.dumps({"c_us": fastest[in_c], "python_us": fastest[in_python]}))
        return 0
    more = fastest[in_python] - fastest[in_c]
    print(f"get of 1 KiB: {fastest[in_c]:.2f} µs in C, {fastest[in_python]:.2f} µs in Python: {more:.2f} µs more")
    print(f"at most {MOST_US} µs more: {'kept' if more <= MOST_US else 'NOT kept'}")
    return 0 if more <= MOST_US else 1


if __name__ == "__main__":
    sys.exit(main())
