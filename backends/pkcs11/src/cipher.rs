//! The two ways to wrap, with a session and a key's handle in hand.
//!
//! The metadata of a wrap: one byte 1 (the version), one byte for the cipher, then the initialization vector.

use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use keystead_backend::{BackendError, Context, ErrorCode, LockedBytes};
use zeroize::Zeroize;

use crate::failure::{Doing, Failure};
use crate::frame::{framed, unframed};
use crate::settings::GcmIv;

const METADATA_VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
/// What is given to the token for an initialization vector; one that makes its own may answer with 16.
const IV_BYTES: usize = 12;
const IV_MAX_BYTES: usize = 16;
pub(crate) const METADATA_MAX_BYTES: usize = 2 + IV_MAX_BYTES;

/// How a key wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// `CKM_AES_GCM`, with the context as associated data.
    Gcm,
    /// `CKM_AES_KEY_WRAP` (RFC 3394), with the context in the [frame](crate::frame).
    KeyWrap,
}

impl Cipher {
    /// What a config calls it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Gcm, Self::KeyWrap]
            .into_iter()
            .find(|cipher| cipher.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gcm => "aes-gcm",
            Self::KeyWrap => "aes-key-wrap",
        }
    }

    pub(crate) fn mechanism(self) -> MechanismType {
        match self {
            Self::Gcm => MechanismType::AES_GCM,
            Self::KeyWrap => MechanismType::AES_KEY_WRAP,
        }
    }

    /// The attributes that allow wrapping and unwrapping to a key.
    pub(crate) fn permissions(self) -> [AttributeType; 2] {
        match self {
            Self::Gcm => [AttributeType::Encrypt, AttributeType::Decrypt],
            Self::KeyWrap => [AttributeType::Wrap, AttributeType::Unwrap],
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Gcm => 1,
            Self::KeyWrap => 2,
        }
    }
}

/// What stands beside a blob.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) cipher: Cipher,
    iv: Vec<u8>,
}

impl Metadata {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&[METADATA_VERSION, self.cipher.number()], self.iv.as_slice()].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [METADATA_VERSION, 1, iv @ ..] if (IV_BYTES..=IV_MAX_BYTES).contains(&iv.len()) => Some(Self {
                cipher: Cipher::Gcm,
                iv: iv.to_vec(),
            }),
            [METADATA_VERSION, 2] => Some(Self {
                cipher: Cipher::KeyWrap,
                iv: Vec::new(),
            }),
            _ => None,
        }
    }
}

/// One key on a token, in a session.
pub(crate) struct Key<'a> {
    pub(crate) session: &'a Session,
    pub(crate) handle: ObjectHandle,
}

/// What [`Key::seal`] takes random bytes from.
pub(crate) type Random<'a> = &'a dyn Fn(&mut [u8]) -> Result<(), BackendError>;

impl Key<'_> {
    pub(crate) fn seal(
        &self,
        doing: Doing<'_>,
        (cipher, gcm_iv): (Cipher, GcmIv),
        context: &Context,
        plaintext: &[u8],
        random: Random<'_>,
    ) -> Result<(Vec<u8>, Metadata), Failure> {
        let (blob, iv) = match cipher {
            Cipher::Gcm => self.seal_gcm(doing, gcm_iv, context, plaintext, random)?,
            Cipher::KeyWrap => (self.seal_key_wrap(context, plaintext)?, Vec::new()),
        };
        Ok((blob, Metadata { cipher, iv }))
    }

    /// `None` for what does not open under this context, where this backend is who sees it.
    pub(crate) fn open(
        &self,
        metadata: &Metadata,
        context: &Context,
        blob: &[u8],
    ) -> Result<Option<LockedBytes>, Failure> {
        match metadata.cipher {
            Cipher::Gcm => self.open_gcm(&metadata.iv, context, blob),
            Cipher::KeyWrap => self.open_key_wrap(context, blob),
        }
    }

    /// True when the key seals and opens something of ours: then a blob that did not open is to blame itself.
    pub(crate) fn works(&self, doing: Doing<'_>, how: (Cipher, GcmIv), random: Random<'_>) -> bool {
        let context = Context::new([("keystead:self-test", "1")]);
        let probe = [7; 16];
        self.seal(doing, how, &context, &probe, random)
            .and_then(|(blob, metadata)| self.open(&metadata, &context, &blob))
            .is_ok_and(|opened| opened.is_some_and(|opened| opened.as_slice() == probe))
    }

    fn seal_gcm(
        &self,
        doing: Doing<'_>,
        gcm_iv: GcmIv,
        context: &Context,
        plaintext: &[u8],
        random: Random<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let mut iv = [0; IV_BYTES];
        if gcm_iv == GcmIv::Application {
            random(&mut iv)?;
        }
        let associated = context.canonical_bytes();
        let parameters = GcmParams::new(&mut iv, &associated, tag_bits())?;
        let mut blob = self
            .session
            .encrypt(&Mechanism::AesGcm(parameters), self.handle, plaintext)?;
        // What was used: ours, one that the token wrote in its place, or one that it put behind the tag.
        let used = match blob.len().checked_sub(plaintext.len() + TAG_BYTES) {
            Some(0) => iv.to_vec(),
            Some(IV_BYTES | IV_MAX_BYTES) => blob.split_off(plaintext.len() + TAG_BYTES),
            _ => {
                return Err(Failure::Ours(doing.failed(
                    ErrorCode::Unavailable,
                    format!(
                        "the token made {} bytes of {}, which is not AES-GCM with a tag of {TAG_BYTES}",
                        blob.len(),
                        plaintext.len()
                    ),
                )));
            }
        };
        if used.iter().all(|&byte| byte == 0) {
            return Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                "the token made no initialization vector of its own, and gcm_iv in the settings says that it does",
            )));
        }
        Ok((blob, used))
    }

    fn open_gcm(&self, iv: &[u8], context: &Context, blob: &[u8]) -> Result<Option<LockedBytes>, Failure> {
        if blob.len() <= TAG_BYTES {
            return Ok(None);
        }
        let mut iv = iv.to_vec();
        let associated = context.canonical_bytes();
        let parameters = GcmParams::new(&mut iv, &associated, tag_bits())?;
        let mut plaintext = self
            .session
            .decrypt(&Mechanism::AesGcm(parameters), self.handle, blob)?;
        let opened = (plaintext.len() == blob.len() - TAG_BYTES).then(|| LockedBytes::copy_from(&plaintext));
        plaintext.zeroize();
        Ok(opened)
    }

    /// Key wrap wraps key objects: the frame is one, of this session, for a moment.
    fn seal_key_wrap(&self, context: &Context, plaintext: &[u8]) -> Result<Vec<u8>, Failure> {
        let frame = framed(context, plaintext);
        let mut template = passing_key();
        template.push(Attribute::Value(frame.as_slice().to_vec()));
        let passing = self.session.create_object(&template);
        for attribute in &mut template {
            if let Attribute::Value(value) = attribute {
                value.zeroize();
            }
        }
        let passing = passing?;
        let blob = self
            .session
            .wrap_key(&Mechanism::AesKeyWrap, self.handle, passing);
        self.session.destroy_object(passing)?;
        Ok(blob?)
    }

    fn open_key_wrap(&self, context: &Context, blob: &[u8]) -> Result<Option<LockedBytes>, Failure> {
        if blob.len() < 24 || !blob.len().is_multiple_of(8) {
            return Ok(None);
        }
        let passing = self
            .session
            .unwrap_key(&Mechanism::AesKeyWrap, self.handle, blob, &passing_key())?;
        let values = self.session.get_attributes(passing, &[AttributeType::Value]);
        self.session.destroy_object(passing)?;
        let mut opened = None;
        for attribute in values? {
            if let Attribute::Value(mut value) = attribute {
                opened = unframed(context, &value);
                value.zeroize();
            }
        }
        Ok(opened)
    }
}

fn tag_bits() -> cryptoki::types::Ulong {
    (8 * TAG_BYTES).try_into().expect("128 is within any number of C")
}

/// A secret of this session alone, whose value can be read: it is ours.
fn passing_key() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_back_and_nothing_else_does() {
        for metadata in [
            Metadata {
                cipher: Cipher::Gcm,
                iv: vec![9; 12],
            },
            Metadata {
                cipher: Cipher::Gcm,
                iv: vec![9; 16],
            },
            Metadata {
                cipher: Cipher::KeyWrap,
                iv: Vec::new(),
            },
        ] {
            let bytes = metadata.to_bytes();
            assert!(bytes.len() <= METADATA_MAX_BYTES);
            assert_eq!(Metadata::from_bytes(&bytes), Some(metadata));
        }
        for bytes in [&[][..], &[1], &[2, 2], &[1, 3], &[1, 1, 0], &[1, 2, 0], &[1; 40]] {
            assert_eq!(Metadata::from_bytes(bytes), None, "{bytes:?}");
        }
    }
}
