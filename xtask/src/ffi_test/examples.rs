//! Writes a program in C of the examples in the header's comments and in the guide: each one is a function, and finds the
//! variables that it speaks of declared as its reader would think of them.

use super::header;
use std::fmt::Write;

/// The program. It is compiled, not run.
pub(super) fn program(header: &str, guide: &str) -> anyhow::Result<String> {
    let mut program = PROLOGUE.to_owned();
    for example in header::examples(header)? {
        // Lists have one name and many types: it is the one that the function gives.
        let list = example
            .of
            .split(['*', ',', '('])
            .find_map(|word| word.trim().strip_prefix("struct ")?.trim().strip_suffix("_list"));
        add(
            &mut program,
            &format!("keystead.h:{}", example.line),
            &example.text,
            list,
        )?;
    }
    for (number, text) in (1..).zip(guide.split("```c\n").skip(1)) {
        let text = text.split("```").next().unwrap_or_default();
        add(&mut program, &format!("the guide's example {number}"), text, None)?;
    }
    program.push_str("int main(void)\n{\n    return 0;\n}\n");
    Ok(program)
}

fn add(program: &mut String, place: &str, text: &str, list: Option<&str>) -> std::fmt::Result {
    // A function of the example stands before what uses it; its own end is a brace at the line's begin.
    let (function, statements) = match text.starts_with("static ") {
        true => text.split_once("\n}\n").unwrap_or(("", text)),
        false => ("", text),
    };
    writeln!(program, "/* {place} */")?;
    if !function.is_empty() {
        writeln!(program, "{function}\n}}\n")?;
    }
    let number = program.len();
    writeln!(
        program,
        "void example_{number}(void);\nvoid example_{number}(void)\n{{"
    )?;
    if let Some(list) = list {
        writeln!(program, "    {list}_list *list = NULL;")?;
    }
    // In a block of its own: an example that declares a variable itself does so.
    writeln!(program, "    {{\n{statements}    }}\n}}\n")
}

const PROLOGUE: &str = r#"/* Written by `cargo xtask ffi-test` from the comments in keystead.h. */
#include <keystead.h>
#include <stdio.h>

int32_t code;
keystead_error *error;
keystead_store_options options;
const keystead_backend *backends[2];
keystead_backend *backend, *managed;
keystead_backend_api my_table;
keystead_store *store;
keystead_organization *acme, *alice;
keystead_secret *secret;
keystead_rewrap_job *job;
keystead_rewrap_status *status;
keystead_second_key *second;
keystead_checkpoint *checkpoint;
keystead_verify_report *report;
keystead_salvage_report *salvaged;
keystead_log *events;
keystead_keyring *keyring;
keystead_keyring_status *standing;
keystead_writer *writer;
keystead_reader *reader;
const char *config_json;
uint8_t digest[32], buffer[1024], part[4096], passphrase[64];
uint32_t version, versions[2];
size_t len, passphrase_len, i;
FILE *file;
void log_in(const uint8_t *password, size_t password_len);
void use(const uint8_t *bytes, size_t bytes_len);

"#;
