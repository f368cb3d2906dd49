//! Wrap and unwrap: what belongs together opens, and nothing else.

use keystead_backend::{Context, ErrorClass, ErrorCode, KeyInstance, Wrapped};
use keystead_loader::probe::ProbedKey;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, call};
use crate::inside::{Checked, Stop, fail};
use crate::secret::{hex, unhex};

/// What the engine wraps: a key, or a key in a frame. Every backend takes these, and the most that it describes.
const NEEDED: [usize; 2] = [32, 64];

pub(super) fn round_trips(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let max = bench.description().limits.plaintext_max_bytes as usize;
    let mut refused = Vec::new();
    for len in bench.sizes(max) {
        let (context, plaintext) = (bench.context(), bench.plaintext(len));
        match key.wrap(&call(), &context, &plaintext) {
            Ok(wrapped) => bench.opens(&key, &context, &wrapped, &plaintext)?,
            // Nothing, or what does not fill a block, is not everybody's.
            Err(error)
                if !NEEDED.contains(&len)
                    && len != max
                    && [ErrorCode::Unsupported, ErrorCode::InvalidConfig].contains(&error.code) =>
            {
                refused.push(len);
            }
            Err(error) => fail!("wrapping {len} bytes: {error}"),
        }
    }
    Ok(match refused.as_slice() {
        [] => Vec::new(),
        [one] => vec![format!("plaintexts of {one} bytes are refused, as unsupported")],
        [first, .., last] => vec![format!(
            "{} of the sizes that were tried are refused as unsupported, from {first} to {last} bytes",
            refused.len()
        )],
    })
}

pub(super) fn context(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let plaintext = bench.plaintext(32);
    let pairs = [
        ("keystead:epoch", "1"),
        ("keystead:organization", "acme"),
        ("keystead:store", "0f"),
    ];
    let context = Context::new(pairs);
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let others = [
        ("another value", vec![("keystead:epoch", "2"), pairs[1], pairs[2]]),
        (
            "a value that is longer",
            vec![("keystead:epoch", "11"), pairs[1], pairs[2]],
        ),
        ("another name", vec![("keystead:epochs", "1"), pairs[1], pairs[2]]),
        ("a pair less", vec![pairs[1], pairs[2]]),
        ("a pair more", vec![pairs[0], pairs[1], pairs[2], ("more", "x")]),
        ("an empty value", vec![("keystead:epoch", ""), pairs[1], pairs[2]]),
        (
            "two values swapped",
            vec![
                pairs[0],
                ("keystead:organization", "0f"),
                ("keystead:store", "acme"),
            ],
        ),
        (
            "another case",
            vec![pairs[0], ("keystead:organization", "ACME"), pairs[2]],
        ),
        ("no pairs at all", vec![]),
    ];
    if !bench.description().capabilities.binds_context {
        return Err(Stop::NotChecked(
            "it does not bind the context, and says so: the host frames the plaintext with a hash of it, as the check \
             `store` shows"
                .into(),
        ));
    }
    for (what, pairs) in others {
        let what = format!("what was wrapped under a context, under one with {what},");
        bench.refuses(&key, &Context::new(pairs), &wrapped, &what)?;
    }
    bench.opens(&key, &context, &wrapped, &plaintext)?;
    // Names and values that are not ASCII, and as many as there may be.
    let unusual =
        Context::new((0..32).map(|n| (format!("n\u{e4}me {n}"), format!("w\u{f6}rt=\u{1f511}, \"{n}\""))));
    bench.round_trip(&key, &unusual, &plaintext)?;
    Ok(Vec::new())
}

pub(super) fn damaged(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let len = wrapped.blob.len();
    let places: Vec<usize> = if bench.job.thorough || len <= 96 {
        (0..len).collect()
    } else {
        (0..96).map(|n| n * (len - 1) / 95).collect()
    };
    for at in places {
        for bit in if bench.job.thorough {
            0..8
        } else {
            at % 8..at % 8 + 1
        } {
            let mut changed = wrapped.clone();
            changed.blob[at] ^= 1 << bit;
            bench.refuses(
                &key,
                &context,
                &changed,
                &format!("a blob of {len} bytes with a bit changed in byte {at}"),
            )?;
        }
    }
    let max = bench.description().limits.blob_max_bytes as usize;
    let other = bench.wrap(&key, &context, &bench.plaintext(32))?;
    let with_blob = |blob: Vec<u8>| Wrapped {
        blob,
        ..wrapped.clone()
    };
    let longer = [wrapped.blob.clone(), vec![0]].concat();
    let mut changes = vec![
        (
            "a blob without its last byte",
            with_blob(wrapped.blob[..len - 1].to_vec()),
        ),
        (
            "a blob without its first byte",
            with_blob(wrapped.blob[1..].to_vec()),
        ),
        ("half a blob", with_blob(wrapped.blob[..len / 2].to_vec())),
        ("one byte of a blob", with_blob(wrapped.blob[..1].to_vec())),
        ("an empty blob", with_blob(Vec::new())),
        ("a blob of zeroes", with_blob(vec![0; len])),
        (
            "the largest blob there may be, of zeroes",
            with_blob(vec![0; max]),
        ),
    ];
    if longer.len() <= max {
        changes.push(("a blob with a byte more", with_blob(longer)));
    }
    for (what, changed) in changes {
        bench.refuses(&key, &context, &changed, what)?;
    }
    metadata(bench, &key, &context, &wrapped, &other, &plaintext)?;
    bench.opens(&key, &context, &wrapped, &plaintext)?;
    Ok(Vec::new())
}

/// Metadata may say what the blob says as well: what is changed in it is refused, or does no harm.
fn metadata(
    bench: &Bench,
    key: &ProbedKey,
    context: &Context,
    wrapped: &Wrapped,
    other: &Wrapped,
    plaintext: &[u8],
) -> Checked<()> {
    let metadata = &wrapped.metadata;
    let mut changes = vec![("another wrap's", other.metadata.clone()), ("no", Vec::new())];
    for at in 0..metadata.len().min(64) {
        let mut changed = metadata.clone();
        changed[at] ^= 1;
        changes.push(("changed", changed));
    }
    let max = bench.description().limits.metadata_max_bytes as usize;
    if metadata.len() < max {
        changes.push(("longer", [metadata.clone(), vec![b'x']].concat()));
    }
    for (what, metadata) in changes {
        let changed = Wrapped {
            metadata,
            ..wrapped.clone()
        };
        match key.unwrap(&call(), context, &changed) {
            Ok(opened) if opened.as_slice() == plaintext => {}
            Ok(_) => fail!("with {what} metadata a blob opened to other bytes"),
            Err(error) if error.code.class() == ErrorClass::Integrity => {}
            Err(error) => fail!(
                "a blob with {what} metadata was refused as \"{error}\"; the code must be INVALID_CIPHERTEXT"
            ),
        }
    }
    Ok(())
}

pub(super) fn wrong_key(bench: &Bench) -> Checked {
    let job = &bench.job;
    if job.other_config.is_none() && job.other_settings.is_none() {
        return Err(Stop::NotChecked(
            "no other key was given: --other-config, --other-settings".into(),
        ));
    }
    let settings = job.other_settings.as_ref().unwrap_or(&job.settings);
    let config = job.other_config.as_ref().unwrap_or(&job.config);
    let other = bench
        .open_as(settings, config, &bench.host())
        .map_err(|error| Stop::Failed(format!("the other key does not open: {error}")))?;
    let key = bench.open()?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let others = bench.round_trip(&other, &context, &plaintext)?;
    if wrapped.key_id == others.key_id {
        fail!(
            "two keys have the key id {:?}: is the other key another one?",
            wrapped.key_id
        );
    }
    bench.refuses(
        &other,
        &context,
        &wrapped,
        "what one key wrapped, by another one,",
    )?;
    bench.refuses(&key, &context, &others, "what another key wrapped")?;
    // The file says that this key wrapped it, and it did not.
    let forged = Wrapped {
        key_id: wrapped.key_id.clone(),
        ..others
    };
    match key.unwrap(&call(), &context, &forged) {
        Ok(_) => fail!("what another key wrapped was opened once its key id was forged"),
        Err(error) if error.code.class() == ErrorClass::Integrity => Ok(Vec::new()),
        Err(error) => Ok(vec![format!(
            "with its key id forged, another key's blob is refused as \"{}\"",
            error.code
        )]),
    }
}

pub(super) fn key_id(bench: &Bench) -> Checked {
    let (key, second) = (bench.open()?, bench.open()?);
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    for (key, from) in [
        (&key, "the same instance"),
        (&key, "the same instance"),
        (&second, "another instance"),
    ] {
        let again = bench.wrap(key, &bench.context(), &plaintext)?;
        if again.key_id != wrapped.key_id {
            fail!(
                "the key id was {:?}, and from {from} it is {:?}",
                wrapped.key_id,
                again.key_id
            );
        }
    }
    bench.opens(&second, &context, &wrapped, &plaintext)?;
    for foreign in ["keystead-conform:no-such-key", ""] {
        let foreign = Wrapped {
            key_id: foreign.into(),
            ..wrapped.clone()
        };
        match key.unwrap(&call(), &context, &foreign) {
            Ok(_) => fail!(
                "the recorded key id is not looked at: with {:?} in its place it opens, too",
                foreign.key_id
            ),
            Err(error)
                if error.code.class() == ErrorClass::Integrity || error.code == ErrorCode::KeyNotFound => {}
            Err(error) => fail!(
                "with {:?} recorded as key id it is refused as \"{error}\"; the code must be WRONG_KEY, INVALID_CIPHERTEXT or \
                 KEY_NOT_FOUND",
                foreign.key_id
            ),
        }
    }
    Ok(vec![format!("the key id is {:?}", wrapped.key_id)])
}

pub(super) fn rewrap(bench: &Bench) -> Checked {
    if !bench.description().capabilities.rewrap {
        return Err(Stop::NotChecked("it offers no rewrap".into()));
    }
    let key = bench.open()?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let again = key
        .rewrap(&call(), &context, &wrapped)
        .map_err(|error| Stop::Failed(format!("re-wrapping: {error}")))?;
    bench.opens(&key, &context, &again, &plaintext)?;
    bench.opens(&key, &context, &wrapped, &plaintext)?;
    if bench.description().capabilities.binds_context {
        bench.refuses(
            &key,
            &bench.context(),
            &again,
            "what was re-wrapped, under another context,",
        )?;
        if key.rewrap(&call(), &bench.context(), &wrapped).is_ok() {
            fail!("a wrap was re-wrapped under another context");
        }
    }
    Ok(Vec::new())
}

/// What one process leaves to the next.
#[derive(Serialize, Deserialize)]
struct Left {
    blob: String,
    key_id: String,
    metadata: String,
    plaintext: String,
}

const LEFT: &str = "left-by-restart";

fn left_context() -> Context {
    Context::new([("keystead:epoch", "1"), ("keystead:store", "0f")])
}

pub(super) fn restart(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let plaintext = bench.plaintext(32);
    let wrapped = bench.wrap(&key, &left_context(), &plaintext)?;
    let left = Left {
        blob: hex(&wrapped.blob),
        key_id: wrapped.key_id,
        metadata: hex(&wrapped.metadata),
        plaintext: hex(&plaintext),
    };
    let file = bench.directory.with_file_name(LEFT);
    std::fs::write(file, serde_json::to_vec(&left).expect("plain texts"))
        .map_err(|error| Stop::NotChecked(format!("the scratch directory: {error}")))?;
    Ok(Vec::new())
}

pub(super) fn restart_again(bench: &Bench) -> Checked {
    let unreadable = || Stop::NotChecked("what the first process left cannot be read".into());
    let left = std::fs::read(bench.directory.with_file_name(LEFT)).map_err(|_| unreadable())?;
    let left: Left = serde_json::from_slice(&left).map_err(|_| unreadable())?;
    let bytes = |text: &str| unhex(text).ok_or_else(unreadable);
    let wrapped = Wrapped {
        blob: bytes(&left.blob)?,
        key_id: left.key_id,
        metadata: bytes(&left.metadata)?,
    };
    bench.opens(
        &*bench.open()?,
        &left_context(),
        &wrapped,
        &bytes(&left.plaintext)?,
    )?;
    Ok(Vec::new())
}
