//! One registered key: wrap, unwrap, status.

use std::sync::Arc;

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keystead_backend::{
    BackendError, Call, Context, ErrorCode, Host, KeyInstance, LockedBytes, Status, Wrapped,
};
use keystead_backend_common::quote;

use crate::cipher::{Cipher, Key, Metadata};
use crate::classify::{Aftermath, aftermath, may_be_the_blob};
use crate::config::KeyConfig;
use crate::failure::{Doing, Failure};
use crate::key_id::{ID_MAX_BYTES, KeyId, LABEL_MAX_BYTES, order};
use crate::settings::GcmIv;
use crate::token::{Connection, Token, is_logged_in};
use crate::wait::Wait;
use crate::{BLOB_MAX_BYTES, PLAINTEXT_MAX_BYTES};

pub(crate) struct Pkcs11Key {
    config: KeyConfig,
    /// What the config says, for messages.
    name: String,
    token: Arc<Token>,
    gcm_iv: GcmIv,
    host: Arc<dyn Host>,
}

/// A key object that was found.
struct Found {
    handle: ObjectHandle,
    key: KeyId,
}

impl Pkcs11Key {
    pub(crate) fn new(config: KeyConfig, token: Arc<Token>, gcm_iv: GcmIv, host: Arc<dyn Host>) -> Self {
        let label = config
            .label
            .as_deref()
            .map(|label| format!("key {}", quote(label)));
        let id = config.id.as_deref().map(|id| {
            let digits: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("key id {digits}")
        });
        let key: Vec<String> = label.into_iter().chain(id).collect();
        Self {
            name: format!("{} on the token {}", key.join(", "), quote(&config.token)),
            config,
            token,
            gcm_iv,
            host,
        }
    }

    /// Does a piece of work in a session; once more in a new connection when the token was lost or fell ill.
    fn with_session<T>(
        &self,
        call: &Call,
        doing: Doing<'_>,
        work: impl Fn(&Connection, &Session) -> Result<T, Failure>,
    ) -> Result<T, BackendError> {
        let wait = Wait::new(call, doing);
        let mut is_second = false;
        loop {
            wait.check("the token was asked")?;
            let connection = self
                .token
                .connection(&wait)
                .map_err(|failure| doing.failure(failure))?;
            let (failure, session) = match connection.session(&wait) {
                Ok(session) => match work(&connection, &session) {
                    Ok(done) => {
                        connection.give_back(session);
                        return Ok(done);
                    }
                    Err(failure) => (failure, Some(session)),
                },
                Err(failure) => (failure, None),
            };
            let error = match failure {
                Failure::Token(error) => error,
                Failure::Ours(error) => {
                    if let Some(session) = session {
                        connection.give_back(session);
                    }
                    return Err(error);
                }
            };
            let aftermath = aftermath(&error);
            if let Some(session) = session {
                connection.end(session, aftermath);
            }
            if aftermath != Aftermath::Sound {
                self.token
                    .disconnect(&connection, aftermath, &wait)
                    .map_err(|failure| doing.failure(failure))?;
            }
            if aftermath == Aftermath::Sound || is_second {
                return Err(doing.token_failed(&error));
            }
            is_second = true;
        }
    }

    /// The key that wraps: of several with the config's label, the one with the greatest id.
    fn newest(&self, doing: Doing<'_>, session: &Session) -> Result<Found, Failure> {
        let mut found = self.find(session, self.config.label.as_deref(), self.config.id.as_deref())?;
        found.sort_by(|a, b| order(&a.key.id).cmp(&order(&b.key.id)));
        let Some(newest) = found.pop() else {
            return Err(Failure::Ours(
                doing.failed(ErrorCode::KeyNotFound, "the token shows no such AES key"),
            ));
        };
        if found
            .last()
            .is_some_and(|other| order(&other.key.id) == order(&newest.key.id))
        {
            return Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                "several keys have this label and id: give each key an id (CKA_ID) of its own",
            )));
        }
        if newest.key.label.len() > LABEL_MAX_BYTES || newest.key.id.len() > ID_MAX_BYTES {
            return Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                format!(
                    "the key's label is longer than {LABEL_MAX_BYTES} bytes, or its id than {ID_MAX_BYTES}"
                ),
            )));
        }
        Ok(newest)
    }

    /// The key that wrapped.
    fn recorded(&self, doing: Doing<'_>, session: &Session, key: &KeyId) -> Result<Found, Failure> {
        let mut found = self.find(session, Some(&key.label), Some(&key.id))?;
        match (found.pop(), found.is_empty()) {
            (Some(found), true) => Ok(found),
            (Some(_), false) => Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                "several keys have this label and id: give each key an id (CKA_ID) of its own",
            ))),
            (None, _) => Err(Failure::Ours(
                doing.failed(ErrorCode::KeyNotFound, "the token shows no such AES key"),
            )),
        }
    }

    fn find(&self, session: &Session, label: Option<&str>, id: Option<&[u8]>) -> Result<Vec<Found>, Failure> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
        ];
        template.extend(label.map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(id.map(|id| Attribute::Id(id.to_vec())));
        let mut found = Vec::new();
        for handle in session.find_objects(&template)? {
            let mut key = KeyId {
                token: self.config.token.clone(),
                label: String::new(),
                id: Vec::new(),
            };
            for attribute in session.get_attributes(handle, &[AttributeType::Label, AttributeType::Id])? {
                match attribute {
                    Attribute::Label(label) => key.label = String::from_utf8_lossy(&label).into_owned(),
                    Attribute::Id(id) => key.id = id,
                    _ => {}
                }
            }
            // A module that does not look at the whole template must not choose the key.
            if label.is_none_or(|label| label == key.label) && id.is_none_or(|id| id == key.id) {
                found.push(Found { handle, key });
            }
        }
        if found.is_empty() && !is_logged_in(session)? {
            // Somebody else in the process logged the user out: the key may well be there.
            let error = Error::Pkcs11(RvError::UserNotLoggedIn, Function::FindObjects);
            return Err(Failure::Token(error));
        }
        Ok(found)
    }

    /// What a new wrap is made with.
    fn cipher(&self, doing: Doing<'_>, connection: &Connection) -> Result<Cipher, Failure> {
        if let Some(wanted) = self.config.cipher {
            if connection.ciphers().contains(&wanted) {
                return Ok(wanted);
            }
            return Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                format!(
                    "the token does not offer {}, which the config asks for",
                    wanted.name()
                ),
            )));
        }
        connection.ciphers().first().copied().ok_or_else(|| {
            Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                "the token offers neither AES-GCM nor AES key wrap",
            ))
        })
    }

    /// What the store file says about a wrap is checked before it is believed.
    fn check_recorded(&self, doing: Doing<'_>, wrapped: &Wrapped) -> Result<(KeyId, Metadata), BackendError> {
        let key = KeyId::from_uri(&wrapped.key_id).ok_or_else(|| {
            doing.failed(
                ErrorCode::InvalidCiphertext,
                format!(
                    "the recorded key id {} is none of this backend's",
                    quote(&wrapped.key_id)
                ),
            )
        })?;
        let is_another = key.token != self.config.token
            || match (&self.config.label, &self.config.id) {
                // Older versions of a key have its label and another id.
                (Some(label), _) => *label != key.label,
                (None, id) => id.as_deref() != Some(&key.id),
            };
        if is_another {
            return Err(doing.failed(
                ErrorCode::WrongKey,
                format!("the blob was wrapped with {}", key.to_uri()),
            ));
        }
        if wrapped.blob.len() > BLOB_MAX_BYTES as usize {
            return Err(doing.failed(
                ErrorCode::InvalidCiphertext,
                format!(
                    "the blob has {} bytes; this backend makes {BLOB_MAX_BYTES} at most",
                    wrapped.blob.len()
                ),
            ));
        }
        let metadata = Metadata::from_bytes(&wrapped.metadata).ok_or_else(|| {
            doing.failed(
                ErrorCode::InvalidCiphertext,
                "the metadata beside the blob is none of this backend's",
            )
        })?;
        Ok((key, metadata))
    }
}

impl KeyInstance for Pkcs11Key {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        let doing = Doing::Look { key: &self.name };
        self.with_session(call, doing, |connection, session| {
            let found = self.newest(doing, session)?;
            let cipher = self.cipher(doing, connection)?;
            for attribute in session.get_attributes(found.handle, &cipher.permissions())? {
                if let Attribute::Encrypt(false)
                | Attribute::Decrypt(false)
                | Attribute::Wrap(false)
                | Attribute::Unwrap(false) = attribute
                {
                    return Err(Failure::Ours(doing.failed(
                        ErrorCode::KeyDisabled,
                        format!("the key has {:?} switched off", attribute.attribute_type()),
                    )));
                }
            }
            Ok(Status {
                key_id: found.key.to_uri(),
                detail: format!(
                    "wraps with {} on a token of {}",
                    cipher.name(),
                    connection.about()
                ),
            })
        })
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        let doing = Doing::Wrap { key: &self.name };
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
        self.with_session(call, doing, |connection, session| {
            let Found { handle, key } = self.newest(doing, session)?;
            let how = (self.cipher(doing, connection)?, self.gcm_iv);
            let (blob, metadata) =
                Key { session, handle }.seal(doing, how, context, plaintext, &|out| self.host.random(out))?;
            Ok(Wrapped {
                blob,
                key_id: key.to_uri(),
                metadata: metadata.to_bytes(),
            })
        })
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        let doing = Doing::Unwrap { key: &self.name };
        let (recorded, metadata) = self.check_recorded(doing, wrapped)?;
        let uri = recorded.to_uri();
        let doing = Doing::Unwrap { key: &uri };
        self.with_session(call, doing, |_, session| {
            let Found { handle, .. } = self.recorded(doing, session, &recorded)?;
            let key = Key { session, handle };
            let refuse = |wrong: String| Failure::Ours(doing.failed(ErrorCode::InvalidCiphertext, wrong));
            match key.open(&metadata, context, &wrapped.blob) {
                Ok(Some(plaintext)) => Ok(plaintext),
                Ok(None) => Err(refuse("it does not open under this context".into())),
                // The token has no word for it: does the key open something that is certainly right?
                Err(Failure::Token(error)) if may_be_the_blob(&error) => {
                    let how = (metadata.cipher, self.gcm_iv);
                    if !key.works(doing, how, &|out| self.host.random(out)) {
                        return Err(Failure::Token(error));
                    }
                    // It may have been ill for a moment only.
                    match key.open(&metadata, context, &wrapped.blob) {
                        Ok(Some(plaintext)) => Ok(plaintext),
                        Err(Failure::Token(again)) if !may_be_the_blob(&again) => Err(Failure::Token(again)),
                        Err(Failure::Ours(ours)) => Err(Failure::Ours(ours)),
                        Ok(None) | Err(Failure::Token(_)) => Err(refuse(format!(
                            "the token says {error}, while the same key opens what it wraps now"
                        ))),
                    }
                }
                Err(failure) => Err(failure),
            }
        })
    }
}
