//! Where a plaintext must not turn up.

use std::time::Duration;

use keystead_backend::{Context, KeyInstance, Wrapped};

use crate::bench::{Bench, call};
use crate::inside::{Checked, Stop, fail};
use crate::memory::{self, Masked};
use crate::secret::Secret;

/// How often memory is looked through again while something is left in it, and what lies between: three seconds and more.
const LOOKS: u32 = 60;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub(super) fn secrets(bench: &Bench) -> Checked {
    let host = bench.host();
    let key = bench.open_on(&host)?;
    let max = bench.description().limits.plaintext_max_bytes as usize;
    let token = bench.job.token.as_ref().filter(|token| token.len() >= 16);
    let mut secrets: Vec<Secret> = token
        .map(|token| Secret::new(token.as_bytes()))
        .into_iter()
        .collect();
    let mut said: Vec<(&str, Vec<u8>)> = Vec::new();
    for len in [32, 64, max] {
        let (context, plaintext) = (bench.context(), bench.plaintext(len));
        secrets.push(Secret::new(&plaintext));
        // A part of it is a secret as well.
        secrets.push(Secret::new(&plaintext[..16]));
        secrets.push(Secret::new(&plaintext[len - 16..]));
        let wrapped = bench.round_trip(&key, &context, &plaintext)?;
        let mut damaged = wrapped.clone();
        damaged.blob.iter_mut().for_each(|byte| *byte ^= 0x55);
        let foreign = Wrapped {
            key_id: "keystead-conform:no-such-key".into(),
            ..wrapped.clone()
        };
        let other = Context::new([("another", "context")]);
        let long = [plaintext.as_slice(), &vec![7; max]].concat();
        let mut cancelled = call();
        cancelled.timeout = std::time::Duration::ZERO;
        cancelled.cancel.cancel();
        let errors = [
            key.unwrap(&call(), &context, &damaged).map(drop),
            key.unwrap(&call(), &other, &wrapped).map(drop),
            key.unwrap(&call(), &context, &foreign).map(drop),
            key.unwrap(&cancelled, &context, &wrapped).map(drop),
            key.wrap(&cancelled, &context, &plaintext).map(drop),
            key.wrap(&call(), &context, &long).map(drop),
        ];
        let odd = key.wrap_as(&Default::default(), &context, &long);
        said.extend(
            odd.ok()
                .and_then(|answer| answer.said)
                .map(|said| ("a message", said.message)),
        );
        said.extend(
            errors
                .into_iter()
                .filter_map(Result::err)
                .map(|error| ("a message", error.message.into_bytes())),
        );
        said.extend([
            ("a blob", wrapped.blob),
            ("metadata", wrapped.metadata),
            ("a key id", wrapped.key_id.into_bytes()),
        ]);
        if let Ok(status) = key.status(&call()) {
            said.extend([
                ("a status", status.detail.into_bytes()),
                ("a key id", status.key_id.into_bytes()),
            ]);
        }
    }
    drop(key);
    let log = host.log();
    said.extend(log.iter().map(|line| ("the log", line.clone().into_bytes())));
    for (place, bytes) in &said {
        if secrets.iter().any(|secret| secret.is_in(bytes)) {
            fail!("a plaintext, a part of one or a token stands in {place}");
        }
    }
    Ok(vec![format!(
        "{} answers and {} lines of log were looked through",
        said.len() - log.len(),
        log.len()
    )])
}

pub(super) fn memory(bench: &Bench) -> Checked {
    if !cfg!(target_os = "linux") {
        return Err(Stop::NotChecked(
            "a process's memory can be looked through on Linux alone".into(),
        ));
    }
    let unknown = Stop::NotChecked;
    let mut masked = Vec::new();
    let key = bench.open()?;
    for _ in 0..8 {
        let context = bench.context();
        let plaintext = memory::random_key().map_err(unknown)?;
        masked.push(Masked::of(plaintext.as_slice()));
        let wrapped = bench.wrap(&key, &context, plaintext.as_slice())?;
        match key.unwrap(&call(), &context, &wrapped) {
            Ok(opened) if opened.as_slice() == plaintext.as_slice() => {}
            Ok(_) => fail!("it opened to other bytes"),
            Err(error) => fail!("unwrapping: {error}"),
        }
    }
    drop(key);
    // One that is there, so that it is known that something would be found.
    let control = memory::random_key().map_err(unknown)?;
    let of_control = Masked::of(control.as_slice());
    if memory::find(&[&of_control]).map_err(unknown)?.is_empty() {
        return Err(Stop::NotChecked(
            "a key that is in memory was not found there".into(),
        ));
    }
    drop(control);
    let masked: Vec<&Masked> = masked.iter().collect();
    let mut found = memory::find(&masked).map_err(unknown)?;
    for looks in 0..LOOKS {
        if found.is_empty() {
            return Ok(match looks {
                0 => Vec::new(),
                more => vec![format!(
                    "what was left at first was gone within {} ms",
                    (BETWEEN_LOOKS * more).as_millis()
                )],
            });
        }
        // A connection that is let go of is ended, and its buffers freed, by a thread of the plugin that has its turn when it has it.
        std::thread::sleep(BETWEEN_LOOKS);
        found = memory::find(&masked).map_err(unknown)?;
    }
    let places = found.len();
    found.sort();
    found.dedup();
    fail!(
        "after 8 wraps, 8 unwraps and close, whole plaintexts are left in memory in {places} places: {}",
        found.join(", ")
    )
}
