//! One registered key: wrap, unwrap, status.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyInstance, LockedBytes, Status, Wrapped,
};
use keystead_backend_common::{Calls, Interrupts, Remaining, quote, without_secret};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::failure::Doing;
use crate::homes::Home;
use crate::http::{Answer, Request};
use crate::path::{KeyPath, version_of};
use crate::session::{Asker, Session};
use crate::{BLOB_MAX_BYTES, PLAINTEXT_MAX_BYTES};

pub(crate) struct TransitKey {
    shared: Arc<Shared>,
    calls: Arc<Calls>,
    interrupts: Interrupts,
    /// The latest wrap that passed through here: what `status` tries.
    latest: Mutex<Option<(Context, Wrapped)>>,
}

/// What a call in flight holds on to, even when its caller has left.
pub(crate) struct Shared {
    pub(crate) key: KeyPath,
    /// Held, so that the next instance with the same settings finds it.
    pub(crate) home: Arc<Home>,
    pub(crate) session: Arc<Session>,
    pub(crate) host: Arc<dyn Host>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
    key_version: Option<u64>,
}

#[derive(Deserialize)]
struct Decrypted<'a> {
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
}

impl TransitKey {
    pub(crate) fn new(shared: Shared, calls: Arc<Calls>) -> Self {
        Self {
            shared: Arc::new(shared),
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

impl KeyInstance for TransitKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shared = Arc::clone(&self.shared);
        let Some((context, wrapped)) = latest else {
            return Ok(Status {
                key_id: String::new(),
                detail: format!(
                    "the server was not asked: nothing was wrapped or unwrapped with {} here yet, and a grant of encrypt and decrypt alone allows no other question",
                    shared.key
                ),
            });
        };
        let doing = Doing::Probe {
            key: &self.shared.key,
        };
        self.calls
            .run_blocking(call, &self.interrupts, &doing.what(), move |remaining| {
                let doing = Doing::Probe { key: &shared.key };
                drop(shared.unwrap(doing, remaining, &context, &wrapped)?);
                Ok(Status {
                    key_id: wrapped.key_id,
                    detail: "Transit unwraps the latest wrap".into(),
                })
            })
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap {
            key: &self.shared.key,
        };
        if plaintext.is_empty() || plaintext.len() > PLAINTEXT_MAX_BYTES as usize {
            return Err(BackendError::new(
                ErrorCode::InvalidConfig,
                format!(
                    "{}: {} bytes were given; 1 to {PLAINTEXT_MAX_BYTES} can be wrapped",
                    doing.what(),
                    plaintext.len()
                ),
            ));
        }
        let shared = Arc::clone(&self.shared);
        let body = encrypt_body(context, plaintext);
        let wrapped = self
            .calls
            .run_blocking(call, &self.interrupts, &doing.what(), move |remaining| {
                shared.wrap(remaining, &body)
            })
            .map_err(|error| {
                without_secret(error, &doing.what(), plaintext, "the key that was to be wrapped")
            })?;
        self.remember(context, &wrapped);
        Ok(wrapped)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap {
            key: &self.shared.key,
        };
        self.shared.check_recorded(doing, wrapped)?;
        let shared = Arc::clone(&self.shared);
        let (given, recorded) = (context.clone(), wrapped.clone());
        let plaintext = self
            .calls
            .run_blocking(call, &self.interrupts, &doing.what(), move |remaining| {
                let doing = Doing::Unwrap { key: &shared.key };
                shared.unwrap(doing, remaining, &given, &recorded)
            })?;
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
        let Some(version) = self.key.version_in(&wrapped.key_id) else {
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the blob was wrapped with {}", quote(&wrapped.key_id)),
            ));
        };
        let damaged = |what: String| Err(doing.failed(ErrorCode::InvalidCiphertext, what));
        if wrapped.blob.is_empty() || wrapped.blob.len() > BLOB_MAX_BYTES as usize {
            return damaged(format!(
                "the blob has {} bytes; Transit makes 1 to {BLOB_MAX_BYTES}",
                wrapped.blob.len()
            ));
        }
        if !wrapped.metadata.is_empty() {
            return damaged(format!(
                "the blob has {} bytes of metadata, and this backend writes none",
                wrapped.metadata.len()
            ));
        }
        match std::str::from_utf8(&wrapped.blob).ok().and_then(version_of) {
            Some(said) if said == version => Ok(()),
            Some(said) => damaged(format!(
                "the blob says version {said} of the key, and its record says {version}"
            )),
            None => damaged("the blob is no ciphertext of Transit's".into()),
        }
    }

    fn wrap(&self, remaining: &Remaining, body: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap { key: &self.key };
        let answer = self.ask(doing, remaining, "encrypt", body)?;
        let Data {
            data: Encrypted {
                ciphertext,
                key_version,
            },
        } = answer.json(doing)?;
        let version = version_of(&ciphertext).filter(|_| ciphertext.len() <= BLOB_MAX_BYTES as usize);
        let Some(version) = version else {
            return Err(doing.garbled("what it calls a ciphertext is none"));
        };
        if key_version.is_some_and(|said| said != version) {
            return Err(doing.garbled("it names two versions of the key"));
        }
        Ok(Wrapped {
            blob: ciphertext.into_bytes(),
            key_id: self.key.with_version(version),
            metadata: Vec::new(),
        })
    }

    fn unwrap(
        &self,
        doing: Doing<'_>,
        remaining: &Remaining,
        context: &Context,
        wrapped: &Wrapped,
    ) -> Result<LockedBytes, BackendError> {
        let answer = self.ask(doing, remaining, "decrypt", &decrypt_body(context, &wrapped.blob))?;
        let Data {
            data: Decrypted { plaintext },
        } = answer.json(doing)?;
        let opened = decode(&plaintext);
        if let Cow::Owned(mut copy) = plaintext {
            copy.zeroize();
        }
        opened.ok_or_else(|| doing.garbled("what it calls a plaintext is none"))
    }

    /// Makes a call by the session's token, and once more by a new one if an old one was not accepted.
    fn ask(
        &self,
        doing: Doing<'_>,
        remaining: &Remaining,
        operation: &str,
        body: &[u8],
    ) -> Result<Answer, BackendError> {
        let asker = Asker {
            client: &self.home.client,
            host: &self.host,
            key: &self.key,
            remaining,
        };
        let mut token = self.session.token(asker)?;
        loop {
            let request = Request {
                path: format!("{}/{operation}/{}", self.key.mount, self.key.name),
                namespace: self.key.namespace.as_deref(),
                token: Some(&token.text),
                body: Some(body),
            };
            match self.home.client.ask(remaining, &self.host, doing, &request) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let error = without_secret(error, &doing.what(), token.text.as_bytes(), "the token");
                    token = self.session.next_token(asker, token, error)?;
                }
            }
        }
    }
}

/// Base64 needs no escapes in JSON.
fn encrypt_body(context: &Context, plaintext: &[u8]) -> Zeroizing<Vec<u8>> {
    let associated = STANDARD.encode(context.canonical_bytes());
    // Room at once: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(
        plaintext.len().div_ceil(3) * 4 + associated.len() + 64,
    ));
    text.push_str("{\"plaintext\":\"");
    STANDARD.encode_string(plaintext, &mut text);
    text.push_str("\",\"associated_data\":\"");
    text.push_str(&associated);
    text.push_str("\"}");
    Zeroizing::new(std::mem::take(&mut *text).into_bytes())
}

fn decrypt_body(context: &Context, blob: &[u8]) -> Vec<u8> {
    let ciphertext = String::from_utf8_lossy(blob);
    let associated = STANDARD.encode(context.canonical_bytes());
    serde_json::json!({ "ciphertext": ciphertext, "associated_data": associated })
        .to_string()
        .into_bytes()
}

fn decode(text: &str) -> Option<LockedBytes> {
    let mut length = 0;
    let room = base64::decoded_len_estimate(text.len());
    let buffer = LockedBytes::fill_with(room, |buffer| {
        length = STANDARD.decode_slice(text, buffer)?;
        Ok::<_, base64::DecodeSliceError>(())
    })
    .ok()?;
    (length > 0).then(|| LockedBytes::copy_from(&buffer.as_slice()[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_wrap_is_json_and_never_moved() {
        let context = Context::new([("store", "0f"), ("epoch", "1")]);
        for length in [1, 2, 3, 32, 4096] {
            let plaintext = vec![7; length];
            let body = encrypt_body(&context, &plaintext);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["plaintext"], STANDARD.encode(&plaintext));
            assert_eq!(
                json["associated_data"],
                STANDARD.encode(context.canonical_bytes())
            );
            let room = length.div_ceil(3) * 4 + STANDARD.encode(context.canonical_bytes()).len() + 64;
            assert!(body.len() <= room, "{} in {room}", body.len());
        }
    }

    #[test]
    fn only_base64_is_a_plaintext() {
        assert_eq!(decode("AAEC").unwrap().as_slice(), [0, 1, 2]);
        assert_eq!(decode("AAE=").unwrap().as_slice(), [0, 1]);
        for text in ["", "A", "AAE", "%%%%", "AAEC\n"] {
            assert!(decode(text).is_none(), "{text:?}");
        }
    }
}
