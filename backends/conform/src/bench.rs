//! What the checks share: instances, contexts, plaintexts, and calls with an eye on the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use keystead_backend::{
    BackendError, Call, Context, Description, ErrorClass, KeyInstance, OpenRequest, Wrapped,
};
use keystead_loader::Plugin;
use keystead_loader::probe::{Probe, ProbedKey};

use crate::host::WatchedHost;
use crate::inside::{Checked, SECRETS, Stop, fail};
use crate::job::Job;
use crate::secret;

/// The deadline of a call that is to succeed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// How much later than it should a call may return: "within its time, or little later", on a busy machine.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// One plugin on its bench.
pub(crate) struct Bench {
    pub(crate) job: Job,
    pub(crate) plugin: Plugin,
    pub(crate) probe: Probe,
    /// This check's own directory; the one above it is shared by all.
    pub(crate) directory: PathBuf,
    made: AtomicU64,
}

impl Bench {
    pub(crate) fn new(job: Job, plugin: Plugin, probe: Probe, directory: &Path) -> Self {
        Self {
            job,
            plugin,
            probe,
            directory: directory.to_owned(),
            made: AtomicU64::new(0),
        }
    }

    pub(crate) fn description(&self) -> &Description {
        self.plugin.description()
    }

    pub(crate) fn host(&self) -> Arc<WatchedHost> {
        Arc::new(WatchedHost::new(self.job.token.clone()))
    }

    /// Opens the key of the config.
    pub(crate) fn open(&self) -> Checked<Arc<ProbedKey>> {
        self.open_on(&self.host())
    }

    pub(crate) fn open_on(&self, host: &Arc<WatchedHost>) -> Checked<Arc<ProbedKey>> {
        self.open_as(&self.job.settings, &self.job.config, host)
            .map_err(|error| Stop::Failed(format!("the key of the config does not open: {error}")))
    }

    pub(crate) fn open_as(
        &self,
        settings: &str,
        config: &str,
        host: &Arc<WatchedHost>,
    ) -> Result<Arc<ProbedKey>, BackendError> {
        self.probe
            .open(&self.request(settings, config, host))
            .map(Arc::new)
    }

    pub(crate) fn request<'a>(
        &self,
        settings: &'a str,
        config: &'a str,
        host: &Arc<WatchedHost>,
    ) -> OpenRequest<'a> {
        OpenRequest {
            settings,
            config,
            host: Arc::clone(host) as _,
        }
    }

    /// A plaintext of so many bytes, unlike any other, and noted as a secret if it is long enough to be told.
    pub(crate) fn plaintext(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        getrandom::fill(&mut bytes).expect("the system has random bytes");
        if len >= 16 {
            secret::note(&self.directory.join(SECRETS), &bytes);
        }
        bytes
    }

    /// A context unlike any other, as the engine's are.
    pub(crate) fn context(&self) -> Context {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        Context::new([
            ("keystead:store", "00112233445566778899aabbccddeeff".to_owned()),
            ("keystead:organization", "conform".to_owned()),
            ("keystead:epoch", number.to_string()),
        ])
    }

    pub(crate) fn wrap(&self, key: &ProbedKey, context: &Context, plaintext: &[u8]) -> Checked<Wrapped> {
        key.wrap(&call(), context, plaintext)
            .map_err(|error| Stop::Failed(format!("wrapping {} bytes: {error}", plaintext.len())))
    }

    /// Wraps, and sees that it opens.
    pub(crate) fn round_trip(
        &self,
        key: &ProbedKey,
        context: &Context,
        plaintext: &[u8],
    ) -> Checked<Wrapped> {
        let wrapped = self.wrap(key, context, plaintext)?;
        self.opens(key, context, &wrapped, plaintext)?;
        Ok(wrapped)
    }

    pub(crate) fn opens(
        &self,
        key: &ProbedKey,
        context: &Context,
        wrapped: &Wrapped,
        plaintext: &[u8],
    ) -> Checked<()> {
        match key.unwrap(&call(), context, wrapped) {
            Ok(opened) if opened.as_slice() == plaintext => Ok(()),
            Ok(opened) => fail!(
                "what was wrapped from {} bytes opened to {} other bytes",
                plaintext.len(),
                opened.as_slice().len()
            ),
            Err(error) => fail!(
                "unwrapping what was wrapped from {} bytes: {error}",
                plaintext.len()
            ),
        }
    }

    /// Sees that an unwrap is refused as what does not belong together. Answers the error.
    pub(crate) fn refuses(
        &self,
        key: &ProbedKey,
        context: &Context,
        wrapped: &Wrapped,
        what: &str,
    ) -> Checked<BackendError> {
        match key.unwrap(&call(), context, wrapped) {
            Ok(_) => fail!("{what} was opened"),
            Err(error) if error.code.class() == ErrorClass::Integrity => Ok(error),
            Err(error) => fail!(
                "{what} was refused as \"{error}\"; the code must be INVALID_CIPHERTEXT or WRONG_KEY, or the engine takes \
                 it for a revocation or an outage"
            ),
        }
    }

    /// Every number from 0 to `max`, or those near to something: small ones, powers of two, the largest.
    pub(crate) fn sizes(&self, max: usize) -> Vec<usize> {
        if self.job.thorough || max <= 64 {
            return (0..=max).collect();
        }
        let powers = (6..20)
            .map(|power| 1usize << power)
            .flat_map(|size| [size - 1, size, size + 1]);
        let mut sizes: Vec<usize> = (0..=33)
            .chain([47, 48, 49])
            .chain(powers)
            .chain([max - 1, max])
            .collect();
        sizes.retain(|size| *size <= max);
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

/// The header of a call that is to succeed.
pub(crate) fn call() -> Call {
    Call::with_timeout(TIMEOUT)
}

/// Does something that must be over within `limit`, and a little.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Checked<T> {
    let began = Instant::now();
    let (done, wait) = channel();
    std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match wait.recv_timeout(limit + GRACE) {
        Ok(answer) => Ok(answer),
        Err(_) => Err(Stop::Late(format!(
            "{what} had not returned {} ms after it should have",
            (began.elapsed().saturating_sub(limit)).as_millis()
        ))),
    }
}
