//! One registered key: wrap, unwrap, status.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use google_cloud_gax::options::RequestOptionsBuilder;
use google_cloud_kms_v1::model::{DecryptResponse, EncryptResponse};
use keystead_backend::{BackendError, Call, Context, ErrorCode, KeyInstance, LockedBytes, Status, Wrapped};
use keystead_backend_common::{Calls, Interrupts, quote, without_secret};
use zeroize::{Zeroize, Zeroizing};

use crate::account::proven;
use crate::failure::Doing;
use crate::name::{KeyName, VersionName};
use crate::session::Session;
use crate::{BLOB_MAX_BYTES, PLAINTEXT_MAX_BYTES};

/// What [`status`](GcpKey::status) has encrypted and decrypted: nothing that anybody keeps secret.
const PROBE: &[u8] = b"keystead asks whether this key can be used";

pub(crate) struct GcpKey {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    interrupts: Interrupts,
}

/// What a call in flight holds on to, even when its caller has left.
struct Shared {
    key: KeyName,
    session: Session,
    /// True once an unwrap was answered by another version than the key's primary.
    saw_older: AtomicBool,
}

impl GcpKey {
    pub(crate) fn new(key: KeyName, session: Session, calls: Arc<Calls>) -> Self {
        Self {
            shared: Arc::new(Shared {
                key,
                session,
                saw_older: AtomicBool::new(false),
            }),
            calls,
            interrupts: Interrupts::default(),
        }
    }
}

impl KeyInstance for GcpKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let shared = Arc::clone(&self.shared);
        let what = Doing::Probe {
            key: self.shared.key.as_str(),
        }
        .what();
        self.calls
            .run(call, &self.interrupts, &what, async move { shared.probe().await })
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
                    "{}: {} bytes were given; this backend wraps 1 to {PLAINTEXT_MAX_BYTES}",
                    doing.what(),
                    plaintext.len()
                ),
            ));
        }
        let shared = Arc::clone(&self.shared);
        let (bound_to, sent) = (context.canonical_bytes(), Zeroizing::new(plaintext.to_vec()));
        let wrapped = self.calls.run(call, &self.interrupts, &doing.what(), async move {
            let doing = Doing::Wrap {
                key: shared.key.as_str(),
            };
            shared.encrypt(doing, &bound_to, &sent).await
        });
        wrapped.map_err(|error| {
            let what = doing.what();
            let error = without_secret(error, &what, plaintext, "the key that was to be wrapped");
            self.shared.session.without_tokens(error, &what)
        })
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap { key: &wrapped.key_id };
        self.shared.check_recorded(wrapped)?;
        let shared = Arc::clone(&self.shared);
        let (bound_to, recorded) = (context.canonical_bytes(), wrapped.clone());
        let work = async move {
            let doing = Doing::Unwrap {
                key: &recorded.key_id,
            };
            let (plaintext, by_primary) = shared.decrypt(doing, &bound_to, &recorded.blob).await?;
            shared.saw_older.fetch_or(!by_primary, Ordering::Relaxed);
            Ok(plaintext)
        };
        self.calls
            .run(call, &self.interrupts, &doing.what(), work)
            .map_err(|error| self.shared.session.without_tokens(error, &doing.what()))
    }

    fn interrupt(&self) {
        self.interrupts.interrupt();
    }
}

impl Shared {
    /// What the store file says about a wrap is checked before it is believed.
    fn check_recorded(&self, wrapped: &Wrapped) -> Result<(), BackendError> {
        let doing = Doing::Unwrap {
            key: self.key.as_str(),
        };
        let recorded = VersionName::parse(&wrapped.key_id).map_err(|what| {
            doing.failed(
                ErrorCode::InvalidCiphertext,
                format!("the recorded key id {} {what}", quote(&wrapped.key_id)),
            )
        })?;
        if recorded.key() != &self.key {
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the blob was wrapped with {recorded}"),
            ));
        }
        if wrapped.blob.is_empty() || wrapped.blob.len() > BLOB_MAX_BYTES as usize {
            return Err(doing.failed(
                ErrorCode::InvalidCiphertext,
                format!(
                    "the blob has {} bytes; this backend records 1 to {BLOB_MAX_BYTES}",
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

    /// Two calls of KMS with nothing secret in them: the answer names the primary version, and both permissions are shown.
    async fn probe(&self) -> Result<Status, BackendError> {
        let doing = Doing::Probe {
            key: self.key.as_str(),
        };
        let wrapped = self.encrypt(doing, PROBE, PROBE).await?;
        let (plaintext, _) = self.decrypt(doing, PROBE, &wrapped.blob).await?;
        if plaintext.as_slice() != PROBE {
            return Err(doing.failed(ErrorCode::WrongKey, "Cloud KMS opened a wrap to something else"));
        }
        let older = if self.saw_older.load(Ordering::Relaxed) {
            "; what was unwrapped here was in part wrapped by older versions, which must stay enabled until the key is rotated in Keystead, too"
        } else {
            ""
        };
        Ok(Status {
            key_id: wrapped.key_id,
            detail: format!("Cloud KMS encrypted and decrypted a text that is no secret{older}"),
        })
    }

    async fn encrypt(
        &self,
        doing: Doing<'_>,
        bound_to: &[u8],
        plaintext: &[u8],
    ) -> Result<Wrapped, BackendError> {
        let kms = self.session.account().kms(doing).await?;
        let mut signer = self.session.signer().await?;
        let answer = loop {
            let request = kms
                .encrypt()
                .set_name(self.key.as_str())
                .set_plaintext(plaintext.to_vec())
                .set_plaintext_crc32c(checksum(plaintext))
                .set_additional_authenticated_data(bound_to.to_vec())
                .set_additional_authenticated_data_crc32c(checksum(bound_to))
                // Another attempt makes another ciphertext, and changes nothing.
                .with_idempotency(true);
            match proven(signer.proof.clone(), request.send()).await {
                Ok(answer) => break answer,
                Err(error) => signer = self.session.next_signer(signer, doing.rpc_failed(&error)).await?,
            }
        };
        self.check_encrypted(doing, answer)
    }

    /// Believes an answer to `Encrypt` when everything in it adds up: Google got what was sent, and this is what Google sent.
    fn check_encrypted(&self, doing: Doing<'_>, answer: EncryptResponse) -> Result<Wrapped, BackendError> {
        let damaged = |what: &str| doing.failed(ErrorCode::Unavailable, what);
        if !answer.verified_plaintext_crc32c || !answer.verified_additional_authenticated_data_crc32c {
            return Err(damaged(
                "Cloud KMS did not check that it got what was sent; the wrap is not used",
            ));
        }
        let blob = answer.ciphertext.to_vec();
        if answer.ciphertext_crc32c != Some(checksum(&blob)) {
            return Err(damaged(
                "the ciphertext does not have the checksum that came with it: it was damaged on the way",
            ));
        }
        if blob.is_empty() || blob.len() > BLOB_MAX_BYTES as usize {
            return Err(damaged(&format!(
                "Cloud KMS answered with a blob of {} bytes",
                blob.len()
            )));
        }
        match VersionName::parse(&answer.name) {
            Ok(version) if version.key() == &self.key => Ok(Wrapped {
                blob,
                key_id: version.as_str().to_owned(),
                metadata: Vec::new(),
            }),
            Ok(version) => Err(doing.failed(
                ErrorCode::WrongKey,
                format!("Cloud KMS answered for another key, {version}"),
            )),
            Err(what) => Err(damaged(&format!(
                "Cloud KMS answered with a version, {}, that {what}",
                quote(&answer.name)
            ))),
        }
    }

    /// The plaintext, and whether the key's primary version opened it. The version itself stands in the ciphertext, and
    /// only Google reads it.
    async fn decrypt(
        &self,
        doing: Doing<'_>,
        bound_to: &[u8],
        blob: &[u8],
    ) -> Result<(LockedBytes, bool), BackendError> {
        let kms = self.session.account().kms(doing).await?;
        let mut signer = self.session.signer().await?;
        let answer = loop {
            let request = kms
                .decrypt()
                .set_name(self.key.as_str())
                .set_ciphertext(blob.to_vec())
                .set_ciphertext_crc32c(checksum(blob))
                .set_additional_authenticated_data(bound_to.to_vec())
                .set_additional_authenticated_data_crc32c(checksum(bound_to))
                .with_idempotency(true);
            match proven(signer.proof.clone(), request.send()).await {
                Ok(answer) => break answer,
                Err(error) => signer = self.session.next_signer(signer, doing.rpc_failed(&error)).await?,
            }
        };
        let (sent, by_primary) = (answer.plaintext_crc32c, answer.used_primary);
        let plaintext = plaintext_of(answer);
        if plaintext.as_slice().is_empty() {
            return Err(doing.failed(ErrorCode::Unavailable, "Cloud KMS answered without a plaintext"));
        }
        if sent != Some(checksum(plaintext.as_slice())) {
            return Err(doing.failed(
                ErrorCode::Unavailable,
                "the plaintext does not have the checksum that came with it: it was damaged on the way",
            ));
        }
        Ok((plaintext, by_primary))
    }
}

/// CRC32C as Cloud KMS writes it.
fn checksum(bytes: &[u8]) -> i64 {
    i64::from(crc32c::crc32c(bytes))
}

/// Takes the plaintext out of an answer; the answer's own copy is zeroized.
fn plaintext_of(answer: DecryptResponse) -> LockedBytes {
    let plaintext = LockedBytes::copy_from(&answer.plaintext);
    // Nobody else holds the answer, so its bytes can be had to write to.
    if let Ok(mut bytes) = answer.plaintext.try_into_mut() {
        bytes.as_mut().zeroize();
    }
    plaintext
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(checksum(b"123456789"), 0xE306_9283);
        assert_eq!(checksum(&[0; 32]), 0x8A91_36AA);
    }
}
