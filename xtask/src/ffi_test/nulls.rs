//! Writes a program in C that calls each function of the header with NULL for each pointer, and with nonsense for each
//! length, one at a time, while everything else is as it should be.

use super::header::{self, Function};
use anyhow::{Context, bail};
use std::fmt::Write;

/// The program. What it calls is read from the header, so that a new function is among it by itself.
pub(super) fn program(header: &str) -> anyhow::Result<String> {
    let functions = header::functions(header)?;
    let mut program = PROLOGUE.to_owned();
    for function in &functions {
        if function.name == "keystead_store_close" {
            continue; // it ends what the others need: see the end of main
        }
        calls(function, &mut program).with_context(|| format!("writing calls of {}", function.name))?;
    }
    program.push_str(EPILOGUE);
    Ok(program)
}

fn calls(function: &Function, program: &mut String) -> anyhow::Result<()> {
    let frees = function.name.ends_with("_free");
    let good: Vec<String> = function
        .arguments
        .iter()
        .map(|(kind, name)| {
            if frees {
                Ok("NULL".into())
            } else {
                fitting(&function.name, kind, name)
            }
        })
        .collect::<anyhow::Result<_>>()?;
    let mut variants = vec![good.clone()];
    if function.name.contains("_finish") {
        variants.clear(); // a finished writer is no writer any more
    }
    for (at, (kind, name)) in function.arguments.iter().enumerate() {
        let bad: &[&str] = match &**kind {
            kind if kind.ends_with('*') => &["NULL"],
            "size_t" if name == "index" || name == "limit" => &["0", "(size_t)-1", "(size_t)-1 / 2"],
            // The room that is claimed is not there; what is checked is that nothing is believed.
            "size_t" if name != "capacity" => &["(size_t)-2", "(size_t)-1 / 2", "(size_t)1 << 62"],
            "size_t" => &["0", "(size_t)-1"],
            _ => &[],
        };
        for value in bad {
            // Versions are written to as much room as is said: that length is the caller's word.
            if name == "out_versions_len" {
                continue;
            }
            let mut given = good.clone();
            given[at] = (*value).to_owned();
            variants.push(given);
        }
    }
    for given in variants {
        let call = format!("{}({})", function.name, given.join(", "));
        match &*function.result {
            "int32_t" => writeln!(program, "    returned({call}, {:?});", function.name)?,
            _ => writeln!(program, "    (void){call};")?,
        }
        writeln!(program, "    clear();")?;
    }
    Ok(())
}

/// A good argument of this type and name.
fn fitting(function: &str, kind: &str, name: &str) -> anyhow::Result<String> {
    let named = kind
        .trim_start_matches("const ")
        .trim_end_matches('*')
        .trim()
        .trim_start_matches("keystead_");
    Ok(match (kind, name) {
        ("keystead_error **", _) => "&failure".into(),
        ("const keystead_backend_api *", _) => "&table".into(),
        ("const keystead_error *", _) => "kept_error".into(),
        (kind, _) if kind.ends_with("**") => format!("&out_{named}"),
        ("const char *", "path") if function.starts_with("keystead_backend_load") => {
            "\"/no/such/plugin.so\"".into()
        }
        ("const char *", "path") if function.starts_with("keystead_store") => "\"/no/such/store\"".into(),
        ("const char *", "path") if function.starts_with("keystead_keyring") => "\"/no/such/keyring\"".into(),
        ("const char *", "damaged_path" | "new_path") => "\"/no/such/store\"".into(),
        ("const char *", name) if name.contains("json") => "\"{}\"".into(),
        ("const char *", _) => "\"a\"".into(),
        ("const uint8_t *", _) => "bytes".into(),
        ("uint8_t *", _) => "bytes".into(),
        ("uint32_t *" | "size_t *", _) => format!("&out_{}", named),
        (kind, "options" | "how" | "out") if kind.ends_with('*') => {
            format!("(sized_{named}(), &struct_{named})")
        }
        (kind, _) if kind.ends_with("_callback") || kind.ends_with("_progress") => "NULL".into(),
        ("void *", _) => "NULL".into(),
        (kind, _) if kind.ends_with('*') => named.to_owned(),
        ("size_t", "capacity") => "sizeof bytes".into(),
        ("size_t", "index") => "0".into(),
        ("size_t", "out_versions_len") => "1".into(),
        ("size_t", name) if name.starts_with("value") || name == "len" => "1".into(),
        ("size_t", name) if name.ends_with("_len") => "Z".into(),
        ("size_t" | "uint32_t" | "uint64_t" | "int32_t", _) => "1".into(),
        _ => bail!("no argument is known for `{kind} {name}`"),
    })
}

const PROLOGUE: &str = r#"/* Written by `cargo xtask ffi-test` from the header. */
#include "claims.h"
#include "table.h"

static keystead_error *failure = NULL;

#define OBJECT(T) static keystead_##T *out_##T = NULL
OBJECT(backend);
OBJECT(store);
OBJECT(organization);
OBJECT(organization_list);
OBJECT(secret);
OBJECT(secret_list);
OBJECT(version_list);
OBJECT(batch);
OBJECT(writer);
OBJECT(reader);
OBJECT(key_list);
OBJECT(epoch_list);
OBJECT(audit_list);
OBJECT(second_key);
OBJECT(checkpoint);
OBJECT(verify_report);
OBJECT(salvage_report);
OBJECT(log);
OBJECT(keyring);
OBJECT(keyring_status);
OBJECT(rewrap_job);
OBJECT(rewrap_status);
static uint32_t out_uint32_t = 0;
static size_t out_size_t = 0;
static uint8_t bytes[4096];

#define STRUCT(T)                                                                                                      \
    static keystead_##T struct_##T;                                                                                    \
    static void sized_##T(void)                                                                                        \
    {                                                                                                                  \
        memset(&struct_##T, 0, sizeof struct_##T);                                                                     \
        struct_##T.struct_size = sizeof struct_##T;                                                                    \
    }                                                                                                                  \
    static void sized_##T(void)
STRUCT(plugin_options);
STRUCT(store_options);
STRUCT(put_options);
STRUCT(organization_info);
STRUCT(secret_view);
STRUCT(secret_info);
STRUCT(version_info);
STRUCT(key_info);
STRUCT(epoch);
STRUCT(audit_record);
STRUCT(audit_head);
STRUCT(second_key_status);
STRUCT(verify_counts);
STRUCT(problem);
STRUCT(salvage_options);
STRUCT(salvage_counts);
STRUCT(loss);
STRUCT(keyring_options);
STRUCT(keyring_info);
STRUCT(rewrap_progress);

static void clear(void)
{
    keystead_error_free(failure);
    failure = NULL;
#define CLEAR(T)                                                                                                       \
    keystead_##T##_free(out_##T);                                                                                      \
    out_##T = NULL
    CLEAR(backend);
    CLEAR(store);
    CLEAR(organization);
    CLEAR(organization_list);
    CLEAR(secret);
    CLEAR(secret_list);
    CLEAR(version_list);
    CLEAR(batch);
    CLEAR(writer);
    CLEAR(reader);
    CLEAR(key_list);
    CLEAR(epoch_list);
    CLEAR(audit_list);
    CLEAR(second_key);
    CLEAR(checkpoint);
    CLEAR(verify_report);
    CLEAR(salvage_report);
    CLEAR(log);
    CLEAR(keyring);
    CLEAR(keyring_status);
    CLEAR(rewrap_job);
    CLEAR(rewrap_status);
}

static unsigned long calls = 0;

/* Whatever was given, the library is sound, and what it says fits together. */
static void returned(int32_t code, const char *function)
{
    calls++;
    if (code == KEYSTEAD_PANICKED || code == KEYSTEAD_OTHER || code < 0
        || (failure != NULL && keystead_error_code(failure) != code)) {
        fprintf(stderr, "%s returned %d: %s\n", function, (int)code, keystead_error_message(failure));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    keystead_backend *backend, *own = NULL;
    keystead_store *store;
    keystead_organization *organization = NULL;
    keystead_organization_list *organization_list = NULL;
    keystead_secret *secret = NULL;
    keystead_secret_list *secret_list = NULL;
    keystead_version_list *version_list = NULL;
    keystead_batch *batch = NULL;
    keystead_writer *writer = NULL;
    keystead_reader *reader = NULL;
    keystead_key_list *key_list = NULL;
    keystead_epoch_list *epoch_list = NULL;
    keystead_audit_list *audit_list = NULL;
    keystead_second_key *second_key = NULL;
    keystead_checkpoint *checkpoint = NULL;
    keystead_verify_report *verify_report = NULL;
    keystead_salvage_report *salvage_report = NULL;
    keystead_keyring *keyring = NULL;
    keystead_keyring_status *keyring_status = NULL;
    char path[4200], other_path[4200];
    keystead_rewrap_job *rewrap_job = NULL;
    keystead_rewrap_status *rewrap_status = NULL;
    keystead_error *kept_error = NULL;
    CLAIM(argc == 2);
    backend = managed_in(argv[1]);
    DO(keystead_backend_from_table(&table, NULL, 0, NULL, 0, &own, &error));
    store = store_in(argv[1], "nulls.keystead", backend, own);
    DO(keystead_organization_create(store, "acme", Z, &organization, &error));
    DO(keystead_put(organization, "a", Z, BYTES("value"), NULL, NULL, &error));
    DO(keystead_key_add(organization, "cmk", Z, "own-kms", Z, NULL, 0, &rewrap_job, &error));
    DO(keystead_rewrap_wait(rewrap_job, 60000, NULL, NULL, &rewrap_status, &error));
    DO(keystead_key_add(organization, "other", Z, "own-kms", Z, NULL, 0, NULL, &error));
    DO(keystead_key_set_second(organization, "other", Z, 0, NULL, &error));
    DO(keystead_second_key_read(organization, &second_key, &error));
    DO(keystead_checkpoint_take(store, &checkpoint, &error));
    DO(keystead_organization_list_read(store, NULL, 0, 10, &organization_list, &error));
    DO(keystead_get(organization, "a", Z, 0, &secret, &error));
    DO(keystead_list(organization, NULL, 0, NULL, 0, 10, &secret_list, &error));
    DO(keystead_history(organization, "a", Z, 0, 10, &version_list, &error));
    DO(keystead_batch_new(&batch, &error));
    DO(keystead_writer_open(organization, "w", Z, NULL, &writer, &error));
    DO(keystead_reader_open(organization, "a", Z, 0, &reader, &error));
    DO(keystead_key_list_read(organization, &key_list, &error));
    DO(keystead_epoch_list_read(organization, &epoch_list, &error));
    DO(keystead_audit_list_read(organization, 0, 10, &audit_list, &error));
    DO(keystead_verify(store, 0, NULL, NULL, &verify_report, &error));
    out_store = store_in(argv[1], "whole.keystead", backend, NULL);
    keystead_store_free(out_store);
    out_store = NULL;
    sprintf(path, "%.4000s/whole.keystead", argv[1]);
    sprintf(other_path, "%.4000s/salvaged.keystead", argv[1]);
    DO(keystead_salvage(path, Z, other_path, Z, NULL, NULL, NULL, NULL, &salvage_report, &error));
    sprintf(path, "%.4000s/own.keyring", argv[1]);
    DO(keystead_keyring_create(path, Z, NULL, &keyring, &error));
    DO(keystead_keyring_read(keyring, &keyring_status, &error));
    CLAIM(keystead_get(organization, "none", Z, 0, &out_secret, &kept_error) == KEYSTEAD_SECRET_NOT_FOUND);

"#;

const EPILOGUE: &str = r#"
    /* Among the calls were good ones, also of what destroys: a new version is read. */
    DO(keystead_put(organization, "a", Z, BYTES("after"), NULL, NULL, &error));
    DO(keystead_get(organization, "a", Z, 0, &out_secret, &error));
    CLAIM(keystead_secret_len(out_secret) == 5);
    DO(keystead_store_close(NULL, &error));
    DO(keystead_store_close(store, NULL));
    DO(keystead_store_close(store, &error));
    clear();
    keystead_error_free(kept_error);
    keystead_rewrap_status_free(rewrap_status);
    keystead_rewrap_job_free(rewrap_job);
    keystead_keyring_status_free(keyring_status);
    keystead_keyring_free(keyring);
    keystead_salvage_report_free(salvage_report);
    keystead_verify_report_free(verify_report);
    keystead_checkpoint_free(checkpoint);
    keystead_second_key_free(second_key);
    keystead_audit_list_free(audit_list);
    keystead_epoch_list_free(epoch_list);
    keystead_key_list_free(key_list);
    keystead_reader_free(reader);
    keystead_writer_free(writer);
    keystead_batch_free(batch);
    keystead_version_list_free(version_list);
    keystead_secret_list_free(secret_list);
    keystead_secret_free(secret);
    keystead_organization_list_free(organization_list);
    keystead_organization_free(organization);
    keystead_store_free(store);
    keystead_backend_free(own);
    keystead_backend_free(backend);
    printf("%lu calls with something missing or senseless, each answered\n", calls);
    return 0;
}
"#;
