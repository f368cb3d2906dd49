//! One registered key: wrap, unwrap, status.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_kms::config::Builder as KmsConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::{DecryptError, DecryptOutput};
use aws_sdk_kms::primitives::Blob;
use keystead_backend::{BackendError, Call, Context, ErrorCode, KeyInstance, LockedBytes, Status, Wrapped};
use keystead_backend_common::{Calls, Interrupts, quote, without_secret};
use zeroize::{Zeroize, Zeroizing};

use crate::arn::KeyArn;
use crate::classify::DRY_RUN_SUCCEEDED;
use crate::failure::Doing;
use crate::session::{Session, Signer};
use crate::{BLOB_MAX_BYTES, PLAINTEXT_MAX_BYTES};

pub(crate) struct AwsKey {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    interrupts: Interrupts,
    /// The latest wrap that passed through here: what `status` tries.
    latest: Mutex<Option<(Context, Wrapped)>>,
}

/// What a call in flight holds on to, even when its caller has left.
struct Shared {
    key: KeyArn,
    session: Session,
}

impl AwsKey {
    pub(crate) fn new(key: KeyArn, session: Session, calls: Arc<Calls>) -> Self {
        Self {
            shared: Arc::new(Shared { key, session }),
            calls,
            interrupts: Interrupts::default(),
            latest: Mutex::new(None),
        }
    }

    fn remember(&self, context: &Context, wrapped: &Wrapped) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.as_ref().is_none_or(|(_, known)| known != wrapped) {
            *latest = Some((context.clone(), wrapped.clone()));
        }
    }
}

impl KeyInstance for AwsKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((context, wrapped)) = latest else {
            return Ok(Status {
                key_id: String::new(),
                detail: format!(
                    "AWS KMS was not asked: nothing was wrapped or unwrapped with {} here yet, and under kms:Encrypt and kms:Decrypt alone there is no other way to ask",
                    self.shared.key
                ),
            });
        };
        let shared = Arc::clone(&self.shared);
        let what = Doing::Probe {
            key: self.shared.key.as_str(),
        }
        .what();
        let work = async move { shared.probe(&context, &wrapped).await };
        self.calls
            .run(call, &self.interrupts, &what, work)
            .map_err(|error| self.shared.session.without_tokens(error, &what))
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap {
            key: self.shared.key.as_str(),
        };
        if plaintext.is_empty() || plaintext.len() > PLAINTEXT_MAX_BYTES as usize {
            return Err(BackendError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{}: {} bytes were given; AWS KMS wraps 1 to {PLAINTEXT_MAX_BYTES}",
                    doing.what(),
                    plaintext.len()
                ),
            ));
        }
        let shared = Arc::clone(&self.shared);
        let (given, sent) = (context.clone(), Zeroizing::new(plaintext.to_vec()));
        let work = async move { shared.wrap(&given, &sent).await };
        let wrapped = self
            .calls
            .run(call, &self.interrupts, &doing.what(), work)
            .map_err(|error| {
                let what = doing.what();
                let error = without_secret(error, &what, plaintext, "the key that was to be wrapped");
                self.shared.session.without_tokens(error, &what)
            })?;
        self.remember(context, &wrapped);
        Ok(wrapped)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap {
            key: self.shared.key.as_str(),
        };
        self.shared.check_recorded(doing, wrapped)?;
        let shared = Arc::clone(&self.shared);
        let (given, recorded) = (context.clone(), wrapped.clone());
        let work = async move { shared.unwrap(&given, &recorded).await };
        let plaintext = self
            .calls
            .run(call, &self.interrupts, &doing.what(), work)
            .map_err(|error| self.shared.session.without_tokens(error, &doing.what()))?;
        self.remember(context, wrapped);
        Ok(plaintext)
    }

    fn interrupt(&self) {
        self.interrupts.interrupt();
    }
}

impl Shared {
    /// What the store file says about a wrap is checked before it is believed.
    fn check_recorded(&self, doing: Doing<'_>, wrapped: &Wrapped) -> Result<(), BackendError> {
        let recorded = KeyArn::parse(&wrapped.key_id).map_err(|what| {
            doing.failed(
                ErrorCode::InvalidCiphertext,
                format!("the recorded key id {} {what}", quote(&wrapped.key_id)),
            )
        })?;
        if !self.key.may_be(&recorded) {
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the blob was wrapped with {recorded}"),
            ));
        }
        if wrapped.blob.is_empty() || wrapped.blob.len() > BLOB_MAX_BYTES as usize {
            return Err(doing.failed(
                ErrorCode::InvalidCiphertext,
                format!(
                    "the blob has {} bytes; AWS KMS makes 1 to {BLOB_MAX_BYTES}",
                    wrapped.blob.len()
                ),
            ));
        }
        if !wrapped.metadata.is_empty() {
            return Err(doing.failed(
                ErrorCode::InvalidCiphertext,
                format!(
                    "the blob has {} bytes of metadata, and this backend writes none",
                    wrapped.metadata.len()
                ),
            ));
        }
        Ok(())
    }

    async fn wrap(&self, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap {
            key: self.key.as_str(),
        };
        let kms = &self.session.account().clients().await.kms;
        let mut signer = self.session.signer().await?;
        let answer = loop {
            let answer = kms
                .encrypt()
                .key_id(self.key.as_str())
                .plaintext(Blob::new(plaintext))
                .set_encryption_context(Some(pairs(context)))
                .customize()
                .config_override(KmsConfig::new().credentials_provider(signer.credentials.clone()))
                .send()
                .await;
            match answer {
                Ok(answer) => break answer,
                Err(error) => signer = self.session.next_signer(signer, doing.sdk_failed(&error)).await?,
            }
        };
        let key_id = self.answering_key(doing, answer.key_id.as_deref())?;
        let blob = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        if blob.is_empty() || blob.len() > BLOB_MAX_BYTES as usize {
            let wrong = format!("KMS answered with a blob of {} bytes", blob.len());
            return Err(doing.failed(ErrorCode::Unavailable, wrong));
        }
        Ok(Wrapped {
            blob,
            key_id,
            metadata: Vec::new(),
        })
    }

    async fn unwrap(&self, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap { key: &wrapped.key_id };
        let kms = &self.session.account().clients().await.kms;
        let mut signer = self.session.signer().await?;
        let answer = loop {
            match decrypt(kms, context, wrapped, &signer, false).await {
                Ok(answer) => break answer,
                Err(error) => signer = self.session.next_signer(signer, doing.sdk_failed(&error)).await?,
            }
        };
        let answering = answer.key_id.clone();
        let plaintext = plaintext_of(answer);
        if answering.as_deref() != Some(wrapped.key_id.as_str()) {
            let answering = quote(answering.as_deref().unwrap_or_default());
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("KMS answered for another key, {answering}"),
            ));
        }
        plaintext.ok_or_else(|| doing.failed(ErrorCode::Unavailable, "KMS answered without a plaintext"))
    }

    async fn probe(&self, context: &Context, wrapped: &Wrapped) -> Result<Status, BackendError> {
        let doing = Doing::Probe { key: &wrapped.key_id };
        let kms = &self.session.account().clients().await.kms;
        let mut signer = self.session.signer().await?;
        loop {
            match decrypt(kms, context, wrapped, &signer, true).await {
                // A server that knows no dry run really decrypts.
                Ok(answer) => break drop(plaintext_of(answer)),
                Err(error) if error.code() == Some(DRY_RUN_SUCCEEDED) => break,
                Err(error) => signer = self.session.next_signer(signer, doing.sdk_failed(&error)).await?,
            }
        }
        Ok(Status {
            key_id: wrapped.key_id.clone(),
            detail: "AWS KMS would unwrap the latest wrap (a dry run of kms:Decrypt)".into(),
        })
    }

    /// The full ARN of the key that answered, also when an alias was asked.
    fn answering_key(&self, doing: Doing<'_>, key_id: Option<&str>) -> Result<String, BackendError> {
        let said = key_id.unwrap_or_default();
        match KeyArn::parse(said) {
            Ok(key) if self.key.may_be(&key) => Ok(said.to_owned()),
            Ok(key) => Err(doing.failed(
                ErrorCode::WrongKey,
                format!("KMS answered for another key, {key}"),
            )),
            Err(what) => Err(doing.failed(
                ErrorCode::Unavailable,
                format!("KMS answered with a key id, {}, that {what}", quote(said)),
            )),
        }
    }
}

async fn decrypt(
    kms: &aws_sdk_kms::Client,
    context: &Context,
    wrapped: &Wrapped,
    signer: &Signer,
    dry_run: bool,
) -> Result<DecryptOutput, SdkError<DecryptError>> {
    kms.decrypt()
        .key_id(&wrapped.key_id)
        .ciphertext_blob(Blob::new(wrapped.blob.as_slice()))
        .set_encryption_context(Some(pairs(context)))
        .set_dry_run(dry_run.then_some(true))
        .customize()
        .config_override(KmsConfig::new().credentials_provider(signer.credentials.clone()))
        .send()
        .await
}

/// Takes the plaintext out of an answer; the answer's own copy is zeroized.
fn plaintext_of(answer: DecryptOutput) -> Option<LockedBytes> {
    let mut bytes = answer.plaintext?.into_inner();
    let plaintext = LockedBytes::copy_from(&bytes);
    bytes.zeroize();
    Some(plaintext)
}

fn pairs(context: &Context) -> std::collections::HashMap<String, String> {
    context
        .entries()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
