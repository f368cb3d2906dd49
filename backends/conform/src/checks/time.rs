//! Time: cancelling, deadlines, interrupting.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use keystead_backend::{BackendError, Call, CancelFlag, ErrorCode, KeyInstance};
use keystead_loader::probe::ProbedKey;

use crate::bench::{Bench, GRACE, TIMEOUT, within};
use crate::inside::{Checked, Stop, fail};
use crate::silent;

const NEEDS_SILENCE: &str = "give --silent-settings, with which the KMS never answers";
/// How long a call on a silent KMS is left alone before it is cancelled.
const UNDISTURBED: Duration = Duration::from_millis(300);

pub(super) fn cancel_before(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let wrapped = bench.round_trip(&key, &context, &plaintext)?;
    let mut answered = Vec::new();
    for what in ["wrap", "unwrap", "status"] {
        let (key, context) = (Arc::clone(&key), context.clone());
        let (plaintext, wrapped) = (plaintext.clone(), wrapped.clone());
        let answer = within(Duration::ZERO, &format!("a cancelled {what}"), move || {
            let call = Call::with_timeout(TIMEOUT);
            call.cancel.cancel();
            match what {
                "wrap" => key.wrap(&call, &context, &plaintext).map(drop),
                "unwrap" => key.unwrap(&call, &context, &wrapped).map(drop),
                _ => key.status(&call).map(drop),
            }
        })?;
        match answer {
            Ok(()) => answered.push(what),
            Err(error) if error.code == ErrorCode::Cancelled => {}
            Err(error) => fail!("a cancelled {what} answers \"{error}\"; the code must be CANCELLED"),
        }
    }
    bench.opens(&key, &context, &wrapped, &plaintext)?;
    Ok(match answered.as_slice() {
        [] => Vec::new(),
        answered => vec![format!(
            "{} is answered all the same, at once",
            answered.join(", ")
        )],
    })
}

pub(super) fn cancel_during(bench: &Bench) -> Checked {
    let key = bench.open()?;
    for step in 0..20 {
        match cancelled_after(bench, &key, Duration::from_micros(250 * step))? {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::Cancelled => {}
            Err(error) => {
                fail!(
                    "a wrap that is cancelled while it runs answers \"{error}\"; the code must be CANCELLED"
                )
            }
        }
    }
    bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
    // Of the calls above nobody knows whether they had begun.
    let Some(silent) = on_silence(bench)? else {
        return Err(Stop::NotChecked(format!(
            "20 wraps were soon over, but none is known to have waited when it was cancelled: {NEEDS_SILENCE}"
        )));
    };
    match cancelled_after(bench, &silent, UNDISTURBED)? {
        Err(error) if error.code == ErrorCode::Cancelled => Ok(Vec::new()),
        Err(error) => {
            fail!("a call that waits for its KMS, cancelled, answers \"{error}\"; the code must be CANCELLED")
        }
        Ok(()) => fail!("with --silent-settings a wrap succeeded: the KMS was not silent"),
    }
}

/// A wrap that is cancelled so long after it began.
fn cancelled_after(
    bench: &Bench,
    key: &Arc<ProbedKey>,
    after: Duration,
) -> Checked<Result<(), BackendError>> {
    let (context, plaintext, key) = (bench.context(), bench.plaintext(32), Arc::clone(key));
    let flag = CancelFlag::default();
    let call = Call {
        cancel: flag.clone(),
        ..Call::with_timeout(TIMEOUT)
    };
    std::thread::spawn(move || {
        std::thread::sleep(after);
        flag.cancel();
    });
    within(after, "a wrap that was cancelled while it ran", move || {
        key.wrap(&call, &context, &plaintext).map(drop)
    })
}

pub(super) fn deadline(bench: &Bench) -> Checked {
    let key = bench.open()?;
    let mut seen = false;
    for (timeout, name) in [
        (Duration::ZERO, "no time at all"),
        (Duration::from_millis(1), "1 ms"),
    ] {
        match timed(bench, &key, timeout)? {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::Timeout => seen = true,
            Err(error) => fail!("a wrap with {name} answers \"{error}\"; the code must be TIMEOUT, or none"),
        }
    }
    bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
    if let Some(silent) = on_silence(bench)? {
        match timed(bench, &silent, UNDISTURBED)? {
            Err(error) if [ErrorCode::Timeout, ErrorCode::Unavailable].contains(&error.code) => seen = true,
            Err(error) => {
                fail!("a call whose KMS does not answer ends with \"{error}\"; the code must be TIMEOUT")
            }
            Ok(()) => fail!("with --silent-settings a wrap succeeded: the KMS was not silent"),
        }
    }
    if !seen {
        return Err(Stop::NotChecked(format!(
            "every call was over before its deadline: {NEEDS_SILENCE}"
        )));
    }
    Ok(Vec::new())
}

fn timed(bench: &Bench, key: &Arc<ProbedKey>, timeout: Duration) -> Checked<Result<(), BackendError>> {
    let (context, plaintext, key) = (bench.context(), bench.plaintext(32), Arc::clone(key));
    let what = format!("a wrap with a deadline of {} ms", timeout.as_millis());
    let answer = within(timeout, &what, move || {
        key.wrap(&Call::with_timeout(timeout), &context, &plaintext)
            .map(drop)
    })?;
    Ok(answer)
}

pub(super) fn interrupt(bench: &Bench) -> Checked {
    if !bench.description().capabilities.interrupt {
        return Err(Stop::NotChecked("it offers no interrupt".into()));
    }
    let key = bench.open()?;
    let interrupted = Arc::clone(&key);
    within(Duration::ZERO, "interrupt, with no call in flight,", move || {
        interrupted.interrupt()
    })?;
    // Later calls are not affected.
    bench.round_trip(&key, &bench.context(), &bench.plaintext(32))?;
    let Some(silent) = on_silence(bench)? else {
        return Err(Stop::NotChecked(format!(
            "later calls are not affected, but none could be interrupted: {NEEDS_SILENCE}"
        )));
    };
    // An interrupt ends what is in flight then, and nobody can see from outside whether the wrap is: so again and again.
    let (over, ended) = std::sync::mpsc::channel::<()>();
    let interrupted = Arc::clone(&silent);
    std::thread::spawn(move || {
        while ended.recv_timeout(UNDISTURBED) == Err(RecvTimeoutError::Timeout) {
            interrupted.interrupt();
        }
    });
    let (context, plaintext) = (bench.context(), bench.plaintext(32));
    let answer = within(UNDISTURBED, "a wrap that was interrupted", move || {
        let answer = silent.wrap(&Call::with_timeout(TIMEOUT), &context, &plaintext);
        drop(over);
        answer.map(drop)
    })?;
    match answer {
        Err(error) if error.code == ErrorCode::Cancelled => Ok(Vec::new()),
        Err(error) => fail!("an interrupted wrap answers \"{error}\"; the code must be CANCELLED"),
        Ok(()) => fail!("with --silent-settings a wrap succeeded: the KMS was not silent"),
    }
}

/// The key on a KMS that never answers, if there are settings for one.
fn on_silence(bench: &Bench) -> Checked<Option<Arc<ProbedKey>>> {
    let Some(settings) = &bench.job.silent_settings else {
        return Ok(None);
    };
    let address =
        silent::listen().map_err(|error| Stop::NotChecked(format!("the silent server: {error}")))?;
    let settings = settings.replace("@SILENT@", &address.to_string());
    let (probe, config, host) = (bench.probe.clone(), bench.job.config.clone(), bench.host());
    let opened = within(GRACE, "open, with a KMS that does not answer,", move || {
        probe.open(&keystead_backend::OpenRequest {
            settings: &settings,
            config: &config,
            host,
        })
    })?;
    match opened {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(error) => fail!("the key does not open with --silent-settings: {error}"),
    }
}
