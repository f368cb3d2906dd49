//! Clock and randomness: the one module through which they enter, so that a run can be repeated from its seed.

use std::fmt::Debug;
use std::time::Duration;

/// The clock and the source of random bytes.
///
/// The store uses [`SystemEnv`] unless it is given another one; tests give it a simulated one.
pub trait Env: Debug + Send + Sync {
    /// The wall clock: time since the Unix epoch.
    fn now(&self) -> Duration;

    /// A clock that never goes back, from an arbitrary beginning.
    fn elapsed(&self) -> Duration;

    /// Fills `out` with random bytes fit for keys.
    ///
    /// # Errors
    ///
    /// When the source of randomness fails; the operation that asked fails with it.
    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error>;

    /// Lets time pass.
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    /// Whether nothing goes on but what the application's own threads do, in the order in which they do it: a KMS is called on
    /// the thread that waits for it, by this clock, and an aging epoch key is renewed by whoever meets it. Only so does a
    /// simulation repeat exactly; otherwise leave it: a backend that hangs then hangs its caller. Default: no.
    fn is_simulation(&self) -> bool {
        false
    }
}

/// The operating system's clock and random source.
#[derive(Debug)]
pub struct SystemEnv {
    started: std::time::Instant,
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where the system's clock is asked"
)]
mod system {
    use super::{Duration, Env, SystemEnv};

    impl Default for SystemEnv {
        fn default() -> Self {
            Self {
                started: std::time::Instant::now(),
            }
        }
    }

    impl Env for SystemEnv {
        fn now(&self) -> Duration {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default()
        }

        fn elapsed(&self) -> Duration {
            self.started.elapsed()
        }

        fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
            getrandom::fill(out).map_err(std::io::Error::from)
        }
    }
}

/// The wall clock in milliseconds, as records keep it.
pub(crate) fn now_ms(env: &dyn Env) -> u64 {
    u64::try_from(env.now().as_millis()).unwrap_or(u64::MAX)
}
