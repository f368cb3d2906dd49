"""Makes the module keystead._native: the C library, whole, behind the declarations of its own header.

The headers and libkeystead.a are found by pkg-config. What Python knows of the library is read from the headers, so
there is no second copy of a declaration that could drift; the archive is linked into the module, so the wheel needs no
library beside it.
"""

import re
import subprocess
from pathlib import Path

import cffi


def pkg_config(*arguments: str) -> str:
    """What pkg-config says of libkeystead."""
    command = ["pkg-config", *arguments, "keystead"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit("building keystead needs pkg-config") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"building keystead needs libkeystead: {error.stderr.strip()}\n"
            "install it (docs/embedding.md), and set PKG_CONFIG_PATH if it is not where the system looks"
        ) from None
    return done.stdout.strip()


def declarations(header: str) -> str:
    """The types, functions and integer constants of a header, as cffi reads them."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r'#\s*ifdef __cplusplus.*?#\s*endif', "", text, flags=re.DOTALL)
    constants = re.findall(r"^\s*#\s*define\s+(KEYSTEAD_\w+)[ \t]+[-+(]*\d", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    # What a plugin exports, the library does not.
    text = re.sub(r"KEYSTEAD_BACKEND_EXPORT[^;]*;", "", text)
    return text + "".join(f"\n#define {name} ..." for name in dict.fromkeys(constants))


# What the library calls when a backend is written in Python; kms.py has the other side.
CALLBACKS = """
extern "Python" {
    int32_t keystead_py_describe(void *, keystead_backend_output *, keystead_backend_error *);
    int32_t keystead_py_open(void *, const keystead_backend_open_request *, keystead_backend_instance **,
                             keystead_backend_error *);
    void keystead_py_close(keystead_backend_instance *);
    int32_t keystead_py_status(keystead_backend_instance *, const keystead_backend_call *,
                               keystead_backend_status_out *, keystead_backend_error *);
    int32_t keystead_py_wrap(keystead_backend_instance *, const keystead_backend_call *,
                             const keystead_backend_context *, const keystead_backend_input *,
                             keystead_backend_wrapped_out *, keystead_backend_error *);
    int32_t keystead_py_unwrap(keystead_backend_instance *, const keystead_backend_call *,
                               const keystead_backend_context *, const keystead_backend_wrapped *,
                               keystead_backend_output *, keystead_backend_error *);
    int32_t keystead_py_rewrap_progress(void *, const keystead_rewrap_progress *);
    void keystead_py_verify_progress(void *, uint64_t);
    void keystead_py_log(void *, const keystead_log_record *);
    void keystead_py_salvage_progress(void *, const keystead_salvage_step *);
    int32_t keystead_py_identity_token(void *, const keystead_identity_request *, uint8_t *, size_t, size_t *);
}
"""

# A get is three calls into the library. In one, and with the fields where Python reads them cheaply, it costs 2 µs less.
GET_TYPES = """
typedef struct {
    keystead_error *error;
    keystead_secret *secret;
    const char *data;
    size_t len;
    uint64_t created_at_ms;
    uint32_t version;
    int32_t has_more; /* labels or a content type */
    keystead_text content_type;
    const keystead_label *labels;
    size_t labels_len;
} keystead_py_got;
"""
GET = """
static int32_t keystead_py_get(const keystead_organization *organization, const char *path, size_t path_len,
                               uint32_t version, keystead_py_got *got) {
    keystead_secret_view view;
    int32_t code = keystead_get(organization, path, path_len, version, &got->secret, &got->error);
    if (code == KEYSTEAD_OK) {
        memset(&view, 0, sizeof view);
        view.struct_size = sizeof view;
        code = keystead_secret_look(got->secret, &view, &got->error);
        got->data = (const char *)view.data;
        got->len = view.len;
        got->created_at_ms = view.created_at_ms;
        got->version = view.version;
        got->has_more = view.content_type.data != NULL || view.labels_len > 0;
        got->content_type = view.content_type;
        got->labels = view.labels;
        got->labels_len = view.labels_len;
    }
    return code;
}
"""


def builder() -> cffi.FFI:
    """The description of the module, for cffi."""
    include = Path(pkg_config("--variable=includedir"))
    archive = Path(pkg_config("--variable=libdir")) / "libkeystead.a"
    headers = [include / "keystead_backend.h", include / "keystead.h"]
    native = cffi.FFI()
    for header in headers:
        native.cdef(declarations(header.read_text()))
    native.cdef(CALLBACKS + GET_TYPES)
    native.cdef("int32_t keystead_py_get(const keystead_organization *, const char *, size_t, uint32_t, keystead_py_got *);")
    libraries = [flag for flag in pkg_config("--static", "--libs-only-l").split() if flag != "-lkeystead"]
    native.set_source(
        "keystead._native",
        "".join(f'#include "{header.name}"\n' for header in headers) + "#include <string.h>\n" + GET_TYPES + GET,
        include_dirs=[str(include)],
        extra_objects=[str(archive)],
        # Its symbols stay inside of the module: a program may have another copy of the library.
        extra_link_args=["-Wl,--exclude-libs,ALL", *libraries],
        py_limited_api=True,
    )
    return native


ffi = builder()
