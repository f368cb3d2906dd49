//! How a vault wraps.

use azure_security_keyvault_keys::models::EncryptionAlgorithm;

use crate::key_id::Service;

/// One of the two ways of wrapping that are used. Recorded with each wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// With an RSA key: in key vaults, and in managed HSMs that have one.
    RsaOaep256,
    /// AES key wrap with a 256-bit key, of multiples of 8 bytes: in managed HSMs.
    A256Kw,
}

impl Algorithm {
    /// What keys in this service can usually do.
    pub(crate) fn usual(service: Service) -> Self {
        match service {
            Service::KeyVault => Self::RsaOaep256,
            Service::ManagedHsm => Self::A256Kw,
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::RsaOaep256, Self::A256Kw]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Kw => "A256KW",
        }
    }

    pub(crate) fn for_the_sdk(self) -> EncryptionAlgorithm {
        match self {
            Self::RsaOaep256 => EncryptionAlgorithm::RsaOaep256,
            Self::A256Kw => EncryptionAlgorithm::A256Kw,
        }
    }

    /// Says why it cannot wrap so many bytes, if it cannot.
    pub(crate) fn check_length(self, bytes: usize) -> Result<(), String> {
        let most = crate::PLAINTEXT_MAX_BYTES as usize;
        match self {
            Self::RsaOaep256 if bytes == 0 || bytes > most => Err(format!(
                "{bytes} bytes were given; RSA-OAEP-256 wraps 1 to {most}"
            )),
            Self::A256Kw if bytes < 16 || bytes > most || !bytes.is_multiple_of(8) => Err(format!(
                "{bytes} bytes were given; A256KW wraps multiples of 8 from 16 to {most}"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_key_with_its_frame_fits_into_both() {
        for algorithm in [Algorithm::RsaOaep256, Algorithm::A256Kw] {
            algorithm.check_length(64).unwrap();
            algorithm
                .check_length(crate::PLAINTEXT_MAX_BYTES as usize)
                .unwrap();
            assert!(algorithm.check_length(0).is_err() && algorithm.check_length(185).is_err());
            assert_eq!(Algorithm::parse(algorithm.name()), Some(algorithm));
        }
        assert!(Algorithm::A256Kw.check_length(33).is_err() && Algorithm::A256Kw.check_length(8).is_err());
    }
}
