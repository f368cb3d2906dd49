//! What fetches something is tried three times: a machine far away hiccups now and then, and the tools that we call try a connection
//! again, but not a transfer that breaks off.
//!
//! Also a module of `keystead-tests`, which installs what stands for KMSs. For shell scripts: `ffi/bindings/testing/retry.sh`.

use anyhow::Context;
use std::time::Duration;

/// Between the tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];

/// Does this up to three times, with a pause between. It must be able to begin anew where it broke off.
///
/// # Errors
///
/// That of the last try.
pub(crate) fn three_times<T>(what: &str, step: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    with_pauses(&PAUSES, what, step)
}

#[allow(
    clippy::print_stderr,
    reason = "a run that stands still for half a minute says why"
)]
fn with_pauses<T>(
    pauses: &[Duration],
    what: &str,
    mut step: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    for pause in pauses {
        match step() {
            Ok(done) => return Ok(done),
            Err(error) => eprintln!(
                "{what} failed, and is tried again in {} seconds: {error:#}",
                pause.as_secs()
            ),
        }
        std::thread::sleep(*pause);
    }
    step().with_context(|| format!("{what} failed {} times; the last time", pauses.len() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step that fails so often, and says which try it was.
    fn tried(failures: usize) -> (usize, anyhow::Result<usize>) {
        let mut tries = 0;
        let came_of_it = with_pauses(&[Duration::ZERO; PAUSES.len()], "fetching", || {
            tries += 1;
            match tries > failures {
                true => Ok(tries),
                false => Err(anyhow::anyhow!("the transfer broke off at try {tries}")),
            }
        });
        (tries, came_of_it)
    }

    #[test]
    fn what_fails_once_or_twice_is_done_again() {
        for failures in 0..3 {
            let (tries, came_of_it) = tried(failures);
            assert_eq!(tries, failures + 1);
            assert_eq!(came_of_it.unwrap(), tries);
        }
    }

    #[test]
    fn what_fails_three_times_is_given_up_with_its_last_error() {
        let (tries, came_of_it) = tried(3);
        assert_eq!(tries, 3);
        let said = format!("{:#}", came_of_it.unwrap_err());
        assert_eq!(
            said,
            "fetching failed 3 times; the last time: the transfer broke off at try 3"
        );
    }

    /// The same of the shell's: what it printed for a command that fails so often with status 7, and its status.
    fn tried_by_the_shell(failures: usize) -> (String, Option<i32>) {
        let script = format!(
            ". ../ffi/bindings/testing/retry.sh
             tries=0
             fetch() {{ tries=$((tries + 1)); echo \"try $tries\"; [ $tries -gt {failures} ] || return 7; }}
             set -eu
             three_times fetch the thing
             echo done"
        );
        let shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("RETRY_PAUSE", "0")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&shell.stderr);
        let announced = "failed with status 7, and is tried again in 0 seconds: fetch the thing";
        assert_eq!(said.matches(announced).count(), failures.min(2), "{said}");
        let printed = String::from_utf8_lossy(&shell.stdout);
        (printed.trim().replace('\n', ", "), shell.status.code())
    }

    #[test]
    fn scripts_do_the_same_and_end_with_the_last_status() {
        for (failures, expected) in [
            (0, ("try 1, done", 0)),
            (1, ("try 1, try 2, done", 0)),
            (2, ("try 1, try 2, try 3, done", 0)),
            (3, ("try 1, try 2, try 3", 7)),
        ] {
            let (printed, status) = tried_by_the_shell(failures);
            assert_eq!((printed.as_str(), status), (expected.0, Some(expected.1)));
        }
    }
}
