//! The table and the description.

use keystead_backend::abi;
use keystead_loader::probe::{Answer, Table};

use crate::bench::Bench;
use crate::inside::{Checked, Stop, fail};

pub(super) fn loads(bench: &Bench) -> Checked {
    let description = bench.description();
    let yes = |is: bool| if is { "yes" } else { "no" };
    let (limits, can) = (description.limits, description.capabilities);
    Ok(vec![format!(
        "plaintexts to {} bytes, blobs to {}, key ids to {}, metadata to {}; binds the context: {}, rewrap: {}, interrupt: {}",
        limits.plaintext_max_bytes,
        limits.blob_max_bytes,
        limits.key_id_max_bytes,
        limits.metadata_max_bytes,
        yes(can.binds_context),
        yes(can.rewrap),
        yes(can.interrupt)
    )])
}

pub(super) fn negotiation(bench: &Bench) -> Checked {
    let ask = |min, max| bench.probe.interface(min, max);
    let first = ask(abi::ABI, abi::ABI);
    let Table::At { .. } = first.table else {
        fail!(
            "asked again for version {}, it answers code {} and no table",
            abi::ABI,
            first.code
        )
    };
    for (min, max) in [(abi::ABI, abi::ABI), (0, abi::ABI), (abi::ABI, 7), (0, u32::MAX)] {
        let answer = ask(min, max);
        match answer.table {
            Table::At { abi, .. } if answer.code == abi::OK && (min..=max).contains(&abi) => {
                if abi == abi::ABI && answer != first {
                    fail!("asked for versions {min} to {max}, it answers another table than before");
                }
            }
            _ => fail!(
                "asked for versions {min} to {max}, it answers code {} and {:?}; it has version {}",
                answer.code,
                answer.table,
                abi::ABI
            ),
        }
    }
    for (min, max) in [(1_000_000, u32::MAX), (u32::MAX, u32::MAX), (0, 0)] {
        let answer = ask(min, max);
        if answer.code != abi::UNSUPPORTED_ABI {
            fail!(
                "asked for versions {min} to {max}, it answers code {} instead of UNSUPPORTED_ABI ({})",
                answer.code,
                abi::UNSUPPORTED_ABI
            );
        }
        if answer.table != Table::Untouched {
            fail!("it refuses versions {min} to {max}, and writes to the place for the table all the same");
        }
    }
    Ok(Vec::new())
}

pub(super) fn describe(bench: &Bench) -> Checked {
    let ask = |room| {
        bench
            .probe
            .describe(room)
            .ok_or_else(|| Stop::Failed("it does not answer its table a second time".into()))
    };
    let whole = ask(abi::JSON_MAX as usize)?;
    let len = described(&whole, "with all the room there is")?.len();
    for _ in 0..3 {
        if ask(abi::JSON_MAX as usize)?.outputs[0].bytes != whole.outputs[0].bytes {
            fail!("it describes itself in other words each time");
        }
    }
    if described(&ask(len)?, "with just enough room")? != whole.outputs[0].bytes {
        fail!("with just enough room it describes itself in other words");
    }
    for room in [0, 1, len / 2, len - 1] {
        let answer = ask(room)?;
        overruns(&answer, &format!("with {room} bytes of room for the description"))?;
        let needed = answer.outputs[0].len;
        if answer.code != abi::BUFFER_TOO_SMALL || needed != len as u64 {
            fail!(
                "with {room} bytes of room for a description of {len} it answers code {} and that it needs {needed}; the \
                 answer is BUFFER_TOO_SMALL ({}) and {len}",
                answer.code,
                abi::BUFFER_TOO_SMALL
            );
        }
    }
    Ok(Vec::new())
}

fn described<'a>(answer: &'a Answer, how: &str) -> Checked<&'a [u8]> {
    overruns(answer, how)?;
    if answer.code != abi::OK {
        fail!("{how} it describes itself with code {}", answer.code);
    }
    Ok(&answer.outputs[0].bytes)
}

/// Ends the check if something was written to that was not given.
pub(super) fn overruns(answer: &Answer, how: &str) -> Checked<()> {
    if answer.overruns.is_empty() {
        return Ok(());
    }
    fail!("{how} it wrote beyond {}", answer.overruns.join(", "))
}

pub(super) fn schema(bench: &Bench) -> Checked {
    let description = bench.description();
    let mut notes = Vec::new();
    for (what, schema, text) in [
        ("config", &description.config_schema, &bench.job.config),
        ("settings", &description.settings_schema, &bench.job.settings),
    ] {
        if schema.is_null() || schema.as_object().is_some_and(serde_json::Map::is_empty) {
            notes.push(format!("it has no schema of the {what}"));
            continue;
        }
        let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) else {
            fail!("the schema of the {what} is no object with `properties`");
        };
        let given: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| Stop::Failed(format!("the {what} that were given are not JSON: {error}")))?;
        for field in given.as_object().into_iter().flatten().map(|(field, _)| field) {
            if !properties.contains_key(field) {
                fail!("the schema of the {what} does not know the field `{field}`, which was given");
            }
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            let known = required
                .as_str()
                .is_some_and(|field| properties.contains_key(field));
            if !known {
                fail!("the schema of the {what} requires {required}, which it does not describe");
            }
        }
    }
    Ok(notes)
}
