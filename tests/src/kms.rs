//! A simulated KMS: a backend in memory whose keys can be disabled, deleted, rotated and put out of reach at any moment, and
//! which counts what it was asked.
//!
//! It keeps what it wrapped in a table of its own and hands out tickets, so that it shares no cryptography with the engine.

use crate::env::SimulatedEnv;
use keystead::Env;
use keystead_backend::{
    BackendError, Call, Capabilities, Context, Description, ErrorCode, Host, KeyBackend, KeyInstance,
    LockedBytes, OpenRequest, Status, Wrapped,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The KMS: clones share it. Its keys come into being when they are first used.
///
/// # Examples
///
/// ```
/// use keystead::{Backend, Store};
/// use keystead_tests::kms::SimulatedKms;
///
/// let kms = SimulatedKms::new();
/// let options = Store::options().backend(Backend::new(kms.clone()).named("managed"));
/// ```
#[derive(Clone, Default)]
pub struct SimulatedKms {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    wrapped: Vec<Entry>,
    calls: Calls,
    /// What the next calls meet before they are looked at: first come, first served.
    faults: Vec<Fault>,
    latency: Duration,
    /// The clock that slow answers move, and by which successes are noted.
    clock: Option<Arc<SimulatedEnv>>,
    /// When an epoch key was last wrapped or unwrapped, by organization.
    served: HashMap<String, Duration>,
    ignores_context: bool,
    binds_context: bool,
}

#[derive(Default)]
struct Key {
    failure: Option<ErrorCode>,
    lies: bool,
    /// How often it was rotated.
    rotations: u32,
}

struct Entry {
    key: String,
    version: u32,
    context: Vec<u8>,
    plaintext: Vec<u8>,
}

/// How often the KMS was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Wraps, failed ones included.
    pub wraps: u64,
    /// Unwraps, failed ones included.
    pub unwraps: u64,
}

impl std::ops::Sub for Calls {
    type Output = Self;

    /// What was asked between two counts.
    fn sub(self, before: Self) -> Self {
        Self {
            wraps: self.wraps - before.wraps,
            unwraps: self.unwraps - before.unwraps,
        }
    }
}

/// What a call meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The call fails with this code and has no effect.
    Refuse(ErrorCode),
    /// The call fails as throttled, and is not to be made again for so long.
    Throttle(Duration),
    /// The call has its effect, but its answer is lost.
    LoseAnswer,
    /// An unwrap returns another key than the one that was wrapped.
    WrongKey,
    /// A wrap returns a blob of this many bytes.
    OversizedBlob(usize),
    /// A wrap returns a blob that means nothing.
    GarbageBlob,
    /// The answer takes so long, by the simulated clock.
    Slow(Duration),
}

impl std::fmt::Debug for SimulatedKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimulatedKms")
    }
}

impl SimulatedKms {
    /// A KMS without keys, faults or latency, which binds the context.
    #[must_use]
    pub fn new() -> Self {
        let kms = Self::default();
        kms.lock().binds_context = true;
        kms
    }

    /// How often it was asked so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.lock().calls
    }

    /// Every use of this key fails with this code from now on.
    pub fn fail(&self, key: &str, code: ErrorCode) {
        self.key(key, |key| key.failure = Some(code));
    }

    /// The key works again.
    pub fn restore(&self, key: &str) {
        self.key(key, |key| key.failure = None);
    }

    /// From now on the key unwraps to other bytes than it wrapped: of two KMSs that wrap one epoch, they disagree.
    pub fn lie(&self, key: &str) {
        self.key(key, |key| key.lies = true);
    }

    /// Every key works again, tells the truth, and no planned fault is left.
    pub fn restore_all(&self) {
        let mut state = self.lock();
        state.faults.clear();
        for key in state.keys.values_mut() {
            (key.failure, key.lies) = (None, false);
        }
    }

    /// How many planned faults no call has met yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    /// From now on slow answers move this clock, and successes are noted by it.
    pub fn set_clock(&self, clock: Arc<SimulatedEnv>) {
        self.lock().clock = Some(clock);
    }

    /// When it last wrapped or unwrapped an epoch key of this organization; probes do not count.
    #[must_use]
    pub fn last_served(&self, organization: &str) -> Option<Duration> {
        self.lock().served.get(organization).copied()
    }

    /// The key gets a new version: wraps from now on are made by it, older ones still open.
    pub fn rotate(&self, key: &str) {
        self.key(key, |key| key.rotations += 1);
    }

    /// The next calls meet these faults, one each.
    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.extend(faults);
    }

    /// Every call takes this long.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// A KMS that opens a wrap under any context, and says that it does not.
    pub fn ignore_context(&self) {
        self.lock().ignores_context = true;
    }

    /// A KMS that cannot bind a context, and says so.
    pub fn declare_no_context(&self) {
        let mut state = self.lock();
        state.binds_context = false;
        state.ignores_context = true;
    }

    /// Every plaintext that it ever wrapped for this key: what its owner may have kept.
    #[must_use]
    pub fn plaintexts(&self, key: &str) -> Vec<Vec<u8>> {
        self.lock()
            .wrapped
            .iter()
            .filter(|entry| entry.key == key)
            .map(|entry| entry.plaintext.clone())
            .collect()
    }

    /// Everything that it ever wrapped.
    #[must_use]
    pub fn all_plaintexts(&self) -> Vec<Vec<u8>> {
        self.lock()
            .wrapped
            .iter()
            .map(|entry| entry.plaintext.clone())
            .collect()
    }

    /// What stands behind a ticket, whoever's key it was wrapped by: what all owners together can open.
    #[must_use]
    pub fn open_ticket(&self, blob: &[u8]) -> Option<Vec<u8>> {
        let ticket: [u8; 8] = *blob.strip_prefix(b"ticket:")?.first_chunk()?;
        let ticket = usize::try_from(u64::from_le_bytes(ticket)).ok()?;
        Some(self.lock().wrapped.get(ticket)?.plaintext.clone())
    }

    fn key(&self, name: &str, change: impl FnOnce(&mut Key)) {
        change(self.lock().keys.entry(name.into()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyBackend for SimulatedKms {
    fn describe(&self) -> Description {
        let mut description = Description::new("simulated", "1");
        description.capabilities = Capabilities {
            binds_context: self.lock().binds_context,
            ..Capabilities::default()
        };
        description
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let config: serde_json::Value = serde_json::from_str(request.config).map_err(|error| {
            BackendError::new(
                ErrorCode::InvalidConfig,
                format!("the config is not JSON: {error}"),
            )
        })?;
        let fields = config.as_object().into_iter().flatten();
        if let Some((unknown, _)) = fields.clone().find(|(name, _)| *name != "key") {
            return Err(BackendError::new(
                ErrorCode::InvalidConfig,
                format!("the field {unknown:?} is not known"),
            ));
        }
        let key = config
            .get("key")
            .and_then(serde_json::Value::as_str)
            .unwrap_or("managed")
            .to_owned();
        Ok(Box::new(SimulatedKey {
            kms: self.clone(),
            key,
            _host: request.host,
        }))
    }
}

impl State {
    fn note_served(&mut self, context: &Context) {
        let entry = |wanted: &str| {
            let mut entries = context.entries();
            entries
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.to_owned())
        };
        let of_an_epoch = entry("keystead:epoch").is_some_and(|epoch| epoch.parse::<u32>().is_ok());
        if let (Some(clock), Some(organization), true) =
            (&self.clock, entry("keystead:organization"), of_an_epoch)
        {
            self.served.insert(organization, clock.elapsed());
        }
    }
}

struct SimulatedKey {
    kms: SimulatedKms,
    key: String,
    _host: Arc<dyn Host>,
}

impl SimulatedKey {
    /// Begins a call: latency, planned faults, the key's state. Returns what the call meets beyond a refusal.
    fn begin(
        &self,
        count: impl FnOnce(&mut Calls),
    ) -> Result<(MutexGuard<'_, State>, Option<Fault>, u32), BackendError> {
        let latency = {
            let mut state = self.kms.lock();
            count(&mut state.calls);
            state.latency
        };
        if !latency.is_zero() {
            std::thread::sleep(latency);
        }
        let mut state = self.kms.lock();
        let fault = if state.faults.is_empty() {
            None
        } else {
            Some(state.faults.remove(0))
        };
        match (&fault, &state.clock) {
            (Some(Fault::Refuse(code)), _) => return Err(self.error(*code)),
            (Some(Fault::Throttle(patience)), _) => {
                return Err(self.error(ErrorCode::Throttled).with_retry_after(*patience));
            }
            (Some(Fault::Slow(by)), Some(clock)) => clock.advance(*by),
            _ => {}
        }
        let key = state.keys.entry(self.key.clone()).or_default();
        if let Some(code) = key.failure {
            return Err(self.error(code));
        }
        let (version, lies) = (key.rotations + 1, key.lies);
        let fault = if lies { Some(Fault::WrongKey) } else { fault };
        Ok((state, fault, version))
    }

    fn error(&self, code: ErrorCode) -> BackendError {
        BackendError::new(code, format!("the simulated KMS says so of key {:?}", self.key))
    }
}

impl KeyInstance for SimulatedKey {
    fn status(&self, _call: &Call) -> Result<Status, BackendError> {
        let (_state, _, version) = self.begin(|_| {})?;
        Ok(Status {
            key_id: format!("{}/{version}", self.key),
            detail: "simulated".into(),
        })
    }

    fn wrap(&self, _call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let (mut state, fault, version) = self.begin(|calls| calls.wraps += 1)?;
        let ticket = state.wrapped.len() as u64;
        state.wrapped.push(Entry {
            key: self.key.clone(),
            version,
            context: context.canonical_bytes(),
            plaintext: plaintext.to_vec(),
        });
        let mut blob = b"ticket:".to_vec();
        blob.extend_from_slice(&ticket.to_le_bytes());
        match fault {
            Some(Fault::LoseAnswer) => return Err(self.error(ErrorCode::Unavailable)),
            Some(Fault::OversizedBlob(bytes)) => blob.resize(bytes, 0),
            Some(Fault::GarbageBlob) => blob = b"garbage".to_vec(),
            _ => {}
        }
        state.note_served(context);
        Ok(Wrapped {
            blob,
            key_id: format!("{}/{version}", self.key),
            metadata: vec![1],
        })
    }

    fn unwrap(
        &self,
        _call: &Call,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        let (mut state, fault, _) = self.begin(|calls| calls.unwraps += 1)?;
        let ticket = wrapped
            .blob
            .strip_prefix(b"ticket:")
            .and_then(|ticket| ticket.try_into().ok());
        let ticket = ticket.ok_or_else(|| self.error(ErrorCode::InvalidCiphertext))?;
        let entry = usize::try_from(u64::from_le_bytes(ticket))
            .ok()
            .and_then(|ticket| state.wrapped.get(ticket));
        let entry = entry.ok_or_else(|| self.error(ErrorCode::InvalidCiphertext))?;
        if entry.key != self.key || wrapped.key_id != format!("{}/{}", entry.key, entry.version) {
            return Err(self.error(ErrorCode::WrongKey));
        }
        if entry.context != context.canonical_bytes() && !state.ignores_context {
            return Err(self.error(ErrorCode::InvalidCiphertext));
        }
        match fault {
            Some(Fault::LoseAnswer) => Err(self.error(ErrorCode::Unavailable)),
            Some(Fault::WrongKey) => Ok(LockedBytes::copy_from(blake3::hash(&entry.plaintext).as_bytes())),
            _ => {
                let plaintext = LockedBytes::copy_from(&entry.plaintext);
                state.note_served(context);
                Ok(plaintext)
            }
        }
    }
}
