//! What the engine asks of a KMS: probe, wrap, unwrap; with deadlines, retries and a context that names the place.

use crate::crypto::{EPOCH_WRAPPING_KEY, derive_pair, wiping_stack};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyring::calls::Failed;
use crate::keyring::registry::{OpenInstance, RegisteredKey, Registry, kms_error};
use crate::names::{EpochNumber, StoreId};
use keystead_backend::{
    BackendError, Call, Context, ErrorClass, ErrorCode, KeyInstance, LockedBytes, Wrapped,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// How the engine calls a KMS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallPolicy {
    /// The deadline of one call.
    pub(crate) timeout: Duration,
    /// Tries in an outage, the first one included.
    pub(crate) attempts_max: u32,
    /// What is waited before the second try; it doubles with each further one.
    pub(crate) backoff: Duration,
}

const EPOCH_KEY_BYTES: usize = 32;
/// More than any KMS makes of 64 bytes (AWS: under 300); it is read with its epoch for ever after.
const BLOB_MAX_BYTES: usize = 64 << 10;
/// An epoch key and the hash of its context, for a KMS that does not bind one.
const FRAMED_BYTES: usize = 64;

/// Speaks to the KMSs of all organizations.
pub(crate) struct Kms {
    pub(crate) registry: Registry,
    env: Arc<dyn Env>,
    store: StoreId,
    policy: CallPolicy,
    requests: AtomicU64,
}

impl Kms {
    pub(crate) fn new(registry: Registry, env: Arc<dyn Env>, store: StoreId, policy: CallPolicy) -> Self {
        Self {
            registry,
            env,
            store,
            policy,
            requests: AtomicU64::new(1),
        }
    }

    /// Wraps an epoch's key, and unwraps it again: the other wraps of it are about to be erased, or there is none, so a
    /// wrap that does not open would be the loss of the epoch. Two KMS calls.
    pub(crate) fn wrap(
        &self,
        key: &RegisteredKey,
        epoch: EpochNumber,
        epoch_key: &LockedBytes,
    ) -> Result<Wrapped> {
        let open = self.registry.instance(key, self.policy.timeout)?;
        let context = || self.context(key, &epoch.to_string());
        let failed = |error| kms_error(key, format!("wrap epoch {epoch}"), error);
        let wrapped = self
            .wrap_under(key, &open, context(), epoch_key)
            .map_err(failed)?;
        if wrapped.blob.len() > BLOB_MAX_BYTES {
            let error = BackendError::new(
                ErrorCode::Internal,
                format!(
                    "the KMS returned {} bytes, which is no wrapped key",
                    wrapped.blob.len()
                ),
            );
            return Err(failed(error));
        }
        let opened = self
            .unwrap_under(key, &open, context(), &wrapped)
            .map_err(|error| {
                kms_error(
                    key,
                    format!("unwrap epoch {epoch}, which it just wrapped,"),
                    error,
                )
            })?;
        if bool::from(opened.as_slice().ct_eq(epoch_key.as_slice())) {
            return Ok(wrapped);
        }
        let error = BackendError::new(
            ErrorCode::WrongKey,
            "the KMS unwraps to another key than it just wrapped",
        );
        Err(failed(error))
    }

    /// Unwraps an epoch's key. One KMS call.
    pub(crate) fn unwrap(
        &self,
        key: &RegisteredKey,
        epoch: EpochNumber,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes> {
        let context = self.context(key, &epoch.to_string());
        self.unwrap_under(
            key,
            &self.registry.instance(key, self.policy.timeout)?,
            context,
            wrapped,
        )
        .map_err(|error| kms_error(key, format!("unwrap epoch {epoch}"), error))
    }

    /// Tells whether a key can be used: wraps and unwraps random bytes, and checks that they do not unwrap under another
    /// context. Three KMS calls.
    pub(crate) fn probe(&self, key: &RegisteredKey) -> Result<()> {
        let open = self.registry.instance(key, self.policy.timeout)?;
        let probe = self.random_key()?;
        let mut nonce = [0; 8];
        self.env.fill_random(&mut nonce).map_err(Error::Randomness)?;
        let name = format!("probe-{}", crate::audit::hex(&nonce));
        let failed = |doing: &str| {
            let doing = format!("{doing}, as a probe");
            move |error| kms_error(key, doing, error)
        };
        let wrapped = self
            .wrap_under(key, &open, self.context(key, &name), &probe)
            .map_err(failed("wrap random bytes"))?;
        let opened = self
            .unwrap_under(key, &open, self.context(key, &name), &wrapped)
            .map_err(failed("unwrap what it wrapped"))?;
        if !bool::from(opened.as_slice().ct_eq(probe.as_slice())) {
            let error = BackendError::new(
                ErrorCode::WrongKey,
                "the KMS returned other bytes than it was given",
            );
            return Err(failed("unwrap what it wrapped")(error));
        }
        match self.unwrap_under(key, &open, self.context(key, &format!("{name}-other")), &wrapped) {
            Err(error) if error.code.class() == ErrorClass::Integrity => Ok(()),
            // A KMS may put a wrong context among what is denied; an outage says nothing about the context.
            Err(error) if error.code.class() != ErrorClass::Retryable => Ok(()),
            Err(error) => Err(failed("unwrap under another context")(error)),
            Ok(_) => Err(failed("unwrap under another context")(BackendError::new(
                ErrorCode::Internal,
                "the KMS opened a wrap under another context than it was made for; it cannot protect this store",
            ))),
        }
    }

    /// 256 random bits.
    pub(crate) fn random_key(&self) -> Result<LockedBytes> {
        // Whoever draws random bytes may leave them on the stack, and the next thing that is boxed would take them along.
        wiping_stack(|| LockedBytes::fill_with(EPOCH_KEY_BYTES, |out| self.env.fill_random(out)))
            .map_err(Error::Randomness)
    }

    /// Names the store, the organization and the epoch, in every wrap and in the KMS's own logs.
    fn context(&self, key: &RegisteredKey, epoch: &str) -> Context {
        Context::new([
            ("keystead:store", self.store.to_string().as_str()),
            ("keystead:organization", key.organization.as_str()),
            ("keystead:epoch", epoch),
        ])
    }

    fn wrap_under(
        &self,
        key: &RegisteredKey,
        open: &OpenInstance,
        context: Context,
        secret: &LockedBytes,
    ) -> Result<Wrapped, BackendError> {
        let plaintext = Arc::new(if open.binds_context {
            LockedBytes::copy_from(secret.as_slice())
        } else {
            framed(secret, &context)
        });
        self.call(key, open, move |instance, call| {
            instance.wrap(call, &context, plaintext.as_slice())
        })
    }

    fn unwrap_under(
        &self,
        key: &RegisteredKey,
        open: &OpenInstance,
        context: Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        let expected = (!open.binds_context).then(|| context_hash(&context));
        let wrapped = wrapped.clone();
        let opened = self.call(key, open, move |instance, call| {
            instance.unwrap(call, &context, &wrapped)
        })?;
        let wrong_length = || {
            let length = opened.as_slice().len();
            Err(BackendError::new(
                ErrorCode::WrongKey,
                format!("the KMS returned {length} bytes, which is no epoch key"),
            ))
        };
        match expected {
            None if opened.as_slice().len() == EPOCH_KEY_BYTES => Ok(opened),
            Some(expected) if opened.as_slice().len() == FRAMED_BYTES => {
                let (secret, hash) = opened.as_slice().split_at(EPOCH_KEY_BYTES);
                if bool::from(hash.ct_eq(&expected)) {
                    Ok(LockedBytes::copy_from(secret))
                } else {
                    Err(BackendError::new(
                        ErrorCode::InvalidCiphertext,
                        "it was wrapped under another context",
                    ))
                }
            }
            _ => wrong_length(),
        }
    }

    /// Makes one call, and in an outage a few more; the last of them begins within the time of one.
    fn call<T: Send + 'static>(
        &self,
        key: &RegisteredKey,
        open: &OpenInstance,
        make: impl Fn(&dyn KeyInstance, &Call) -> Result<T, BackendError> + Send + Sync + 'static,
    ) -> Result<T, BackendError> {
        let make = Arc::new(make);
        let began = self.env.elapsed();
        let mut attempt = 1;
        loop {
            let call = Call {
                request_id: self.requests.fetch_add(1, Ordering::Relaxed),
                ..Call::with_timeout(self.policy.timeout)
            };
            let make = Arc::clone(&make);
            let Failed { error, begun } = match open.call(call, move |instance, call| make(instance, call)) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if begun && error.code == ErrorCode::Timeout {
                self.registry.forget(key);
            }
            // A deadline that passed has cost the caller enough.
            if error.code.class() != ErrorClass::Retryable
                || error.code == ErrorCode::Timeout
                || attempt == self.policy.attempts_max
            {
                return Err(error);
            }
            let pause = backoff(&*self.env, self.policy.backoff, attempt, error.retry_after);
            // So would a KMS that wants to be left alone for long: who asked is told how long, and decides.
            if self.env.elapsed().saturating_sub(began).saturating_add(pause) > self.policy.timeout {
                return Err(error);
            }
            self.env.sleep(pause);
            attempt += 1;
        }
    }
}

/// How long to wait before try number `attempt + 1`: doubling from `first`, at most a minute, half of it at random; never
/// less than the KMS asked for, up to that minute.
pub(crate) fn backoff(
    env: &dyn Env,
    first: Duration,
    attempt: u32,
    retry_after: Option<Duration>,
) -> Duration {
    const MOST: Duration = Duration::from_secs(60);
    let whole = first
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
        .min(MOST);
    let mut random = [0];
    // Without randomness there is no jitter, which is a pity and no more.
    let _ = env.fill_random(&mut random);
    let jittered = whole / 2 + whole.mul_f64(f64::from(random[0]) / 510.0);
    jittered.max(retry_after.unwrap_or_default()).min(MOST)
}

fn framed(secret: &LockedBytes, context: &Context) -> LockedBytes {
    let hash = context_hash(context);
    let filled: Result<_, std::convert::Infallible> = LockedBytes::fill_with(FRAMED_BYTES, |out| {
        let (key, frame) = out.split_at_mut(EPOCH_KEY_BYTES);
        key.copy_from_slice(secret.as_slice());
        frame.copy_from_slice(&hash);
        Ok(())
    });
    match filled {
        Ok(framed) => framed,
        Err(never) => match never {},
    }
}

fn context_hash(context: &Context) -> [u8; 32] {
    crate::crypto::context_hash(&context.canonical_bytes())
}

/// The place of an epoch's key, for deriving from it.
fn derivation_context(store: StoreId, key: &RegisteredKey, epoch: EpochNumber) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(store.as_bytes());
    context[16..20].copy_from_slice(&key.org.0.to_be_bytes());
    context[20..24].copy_from_slice(&epoch.0.to_be_bytes());
    context
}

/// From an epoch key to the key that wraps data keys, and the commitment that names the epoch key.
pub(crate) fn derive_wrapping_key(
    store: StoreId,
    key: &RegisteredKey,
    epoch: EpochNumber,
    epoch_key: &LockedBytes,
) -> Result<crate::crypto::Derived> {
    let bytes: &[u8; EPOCH_KEY_BYTES] = epoch_key.as_slice().try_into().map_err(|_| {
        kms_error(
            key,
            format!("unwrap epoch {epoch}"),
            BackendError::new(ErrorCode::WrongKey, "it has not 32 bytes"),
        )
    })?;
    let context = derivation_context(store, key, epoch);
    Ok(wiping_stack(|| derive_pair(&EPOCH_WRAPPING_KEY, bytes, &context)))
}
