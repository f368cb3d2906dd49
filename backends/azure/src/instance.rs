//! One registered key: wrap, unwrap, status.

use std::sync::Arc;

use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{
    Key, KeyClientGetKeyOptions, KeyClientWrapKeyOptions, KeyOperationParameters, KeyOperationResult,
};
use keystead_backend::{BackendError, Call, Context, ErrorCode, KeyInstance, LockedBytes, Status, Wrapped};
use keystead_backend_common::{Calls, Interrupts, quote, without_secret};
use zeroize::{Zeroize, Zeroizing};

use crate::BLOB_MAX_BYTES;
use crate::algorithm::Algorithm;
use crate::failure::Doing;
use crate::key_id::KeyId;
use crate::session::Session;

pub(crate) struct AzureKey {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    interrupts: Interrupts,
}

/// What a call in flight holds on to, even when its caller has left.
struct Shared {
    key: KeyId,
    algorithm: Algorithm,
    session: Session,
}

impl AzureKey {
    pub(crate) fn new(key: KeyId, algorithm: Algorithm, session: Session, calls: Arc<Calls>) -> Self {
        Self {
            shared: Arc::new(Shared {
                key,
                algorithm,
                session,
            }),
            calls,
            interrupts: Interrupts::default(),
        }
    }
}

impl KeyInstance for AzureKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let shared = Arc::clone(&self.shared);
        let what = Doing::Look {
            key: self.shared.key.as_str(),
        }
        .what();
        self.calls
            .run(call, &self.interrupts, &what, async move { shared.look().await })
            .map_err(|error| self.shared.session.without_tokens(error, &what))
    }

    fn wrap(&self, call: &Call, _context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let what = Doing::Wrap {
            key: self.shared.key.as_str(),
        }
        .what();
        self.shared
            .algorithm
            .check_length(plaintext.len())
            .map_err(|wrong| BackendError::new(ErrorCode::InvalidConfig, format!("{what}: {wrong}")))?;
        let shared = Arc::clone(&self.shared);
        let sent = Zeroizing::new(plaintext.to_vec());
        let wrapped = self.calls.run(
            call,
            &self.interrupts,
            &what,
            async move { shared.wrap(&sent).await },
        );
        wrapped.map_err(|error| {
            let error = without_secret(error, &what, plaintext, "the key that was to be wrapped");
            self.shared.session.without_tokens(error, &what)
        })
    }

    fn unwrap(
        &self,
        call: &Call,
        _context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap {
            key: self.shared.key.as_str(),
        };
        let (key, algorithm) = self.shared.check_recorded(doing, wrapped)?;
        let shared = Arc::clone(&self.shared);
        let blob = wrapped.blob.clone();
        let what = doing.what();
        let work = async move { shared.unwrap(&key, algorithm, &blob).await };
        self.calls
            .run(call, &self.interrupts, &what, work)
            .map_err(|error| self.shared.session.without_tokens(error, &what))
    }

    fn interrupt(&self) {
        self.interrupts.interrupt();
    }
}

impl Shared {
    /// What the store file says about a wrap is checked before it is believed.
    fn check_recorded(
        &self,
        doing: Doing<'_>,
        wrapped: &Wrapped,
    ) -> Result<(KeyId, Algorithm), BackendError> {
        let damaged = |what: String| Err(doing.failed(ErrorCode::InvalidCiphertext, what));
        let key = match KeyId::parse(&wrapped.key_id) {
            Ok(key) => key,
            Err(what) => return damaged(format!("the recorded key id {} {what}", quote(&wrapped.key_id))),
        };
        if !self.key.may_be(&key) {
            return Err(doing.failed(ErrorCode::WrongKey, format!("the blob was wrapped with {key}")));
        }
        let named = std::str::from_utf8(&wrapped.metadata)
            .ok()
            .and_then(Algorithm::parse);
        let Some(algorithm) = named else {
            return damaged("the recorded algorithm is none that this backend writes".into());
        };
        if wrapped.blob.is_empty() || wrapped.blob.len() > BLOB_MAX_BYTES as usize {
            return damaged(format!(
                "the blob has {} bytes; a vault makes 1 to {BLOB_MAX_BYTES}",
                wrapped.blob.len()
            ));
        }
        Ok((key, algorithm))
    }

    async fn wrap(&self, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap {
            key: self.key.as_str(),
        };
        let mut attempt = self.session.attempt().await?;
        let answer = loop {
            let version = self.key.version().map(str::to_owned);
            match wrap(
                attempt.keys(),
                self.key.name(),
                version,
                self.algorithm,
                plaintext,
            )
            .await
            {
                Ok(answer) => break attempt.succeeded(answer),
                Err(error) => attempt.failed(doing, &error).await?,
            }
        };
        let key_id = self.answering_version(doing, answer.kid.as_deref())?;
        let blob = answer.result.unwrap_or_default();
        if blob.is_empty() || blob.len() > BLOB_MAX_BYTES as usize {
            let wrong = format!("the vault answered with a blob of {} bytes", blob.len());
            return Err(doing.failed(ErrorCode::Unavailable, wrong));
        }
        Ok(Wrapped {
            blob,
            key_id,
            metadata: self.algorithm.name().into(),
        })
    }

    async fn unwrap(
        &self,
        key: &KeyId,
        algorithm: Algorithm,
        blob: &[u8],
    ) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap { key: key.as_str() };
        let mut attempt = self.session.attempt().await?;
        let answer = loop {
            match unwrap(attempt.keys(), key, algorithm, blob).await {
                Ok(answer) => break attempt.succeeded(answer),
                Err(error) => attempt.failed(doing, &error).await?,
            }
        };
        let plaintext = answer.result.map(|mut bytes| {
            let plaintext = LockedBytes::copy_from(&bytes);
            bytes.zeroize();
            plaintext
        });
        let answering = answer.kid.unwrap_or_default();
        if !KeyId::parse(&answering).is_ok_and(|answering| key.may_be(&answering)) {
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the vault answered for another key, {}", quote(&answering)),
            ));
        }
        plaintext.ok_or_else(|| doing.failed(ErrorCode::Unavailable, "the vault answered without a key"))
    }

    async fn look(&self) -> Result<Status, BackendError> {
        let doing = Doing::Look {
            key: self.key.as_str(),
        };
        let mut attempt = self.session.attempt().await?;
        let answer = loop {
            let version = self.key.version().map(str::to_owned);
            match get(attempt.keys(), self.key.name(), version).await {
                Ok(answer) => break attempt.succeeded(answer),
                Err(error) => attempt.failed(doing, &error).await?,
            }
        };
        let kid = answer.key.and_then(|key| key.kid);
        let key_id = self.answering_version(doing, kid.as_deref())?;
        let enabled = answer.attributes.and_then(|attributes| attributes.enabled);
        if enabled == Some(false) {
            return Err(doing.failed(ErrorCode::KeyDisabled, format!("{key_id} is disabled")));
        }
        Ok(Status {
            key_id,
            detail: "the key's current version is enabled; whether it may be used to wrap and unwrap was not tried"
                .into(),
        })
    }

    /// The identifier, with its version, of the key that answered.
    fn answering_version(&self, doing: Doing<'_>, kid: Option<&str>) -> Result<String, BackendError> {
        let said = kid.unwrap_or_default();
        match KeyId::parse(said) {
            Ok(key) if self.key.may_be(&key) => Ok(said.to_owned()),
            Ok(key) => Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the vault answered for another key, {key}"),
            )),
            Err(what) => Err(doing.failed(
                ErrorCode::Unavailable,
                format!("the vault answered with a key id, {}, that {what}", quote(said)),
            )),
        }
    }
}

async fn wrap(
    keys: &KeyClient,
    name: &str,
    key_version: Option<String>,
    algorithm: Algorithm,
    plaintext: &[u8],
) -> azure_core::Result<KeyOperationResult> {
    let options = KeyClientWrapKeyOptions {
        key_version,
        ..KeyClientWrapKeyOptions::default()
    };
    let parameters = parameters(algorithm, plaintext).try_into()?;
    keys.wrap_key(name, parameters, Some(options)).await?.into_model()
}

async fn unwrap(
    keys: &KeyClient,
    key: &KeyId,
    algorithm: Algorithm,
    blob: &[u8],
) -> azure_core::Result<KeyOperationResult> {
    let version = key.version().unwrap_or_default();
    let parameters = parameters(algorithm, blob).try_into()?;
    keys.unwrap_key(key.name(), version, parameters, None)
        .await?
        .into_model()
}

async fn get(keys: &KeyClient, name: &str, key_version: Option<String>) -> azure_core::Result<Key> {
    let options = KeyClientGetKeyOptions {
        key_version,
        ..KeyClientGetKeyOptions::default()
    };
    keys.get_key(name, Some(options)).await?.into_model()
}

fn parameters(algorithm: Algorithm, value: &[u8]) -> KeyOperationParameters {
    KeyOperationParameters {
        algorithm: Some(algorithm.for_the_sdk()),
        value: Some(value.to_vec()),
        ..KeyOperationParameters::default()
    }
}
