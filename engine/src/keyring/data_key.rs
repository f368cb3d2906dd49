//! Data keys: one for each secret version, sealed under the wrapping key of an epoch.

use crate::crypto::{Cipher, KEY_LEN};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::keyring::cache::EpochKey;
use crate::names::{EpochNumber, OrganizationId, StoreId, Version};
use crate::storage::records::DataKeyRow;
use zeroize::Zeroizing;

/// 256 random bits that seal one value. In the heap: moving them leaves no copy on the stack.
pub(crate) type DataKey = Box<Zeroizing<[u8; KEY_LEN]>>;

/// Which version a data key is for: it opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataKeyPlace {
    pub(crate) store: StoreId,
    pub(crate) org: OrganizationId,
    pub(crate) secret_id: u64,
    pub(crate) version: Version,
}

const DOMAIN: &[u8; 19] = b"keystead 1 data key";
const ASSOCIATED_BYTES: usize = 19 + 16 + 4 + 8 + 4 + 4;

impl DataKeyPlace {
    /// A label for the domain and format, store, organization, secret, version, epoch; numbers big-endian.
    fn associated_data(&self, epoch: EpochNumber) -> [u8; ASSOCIATED_BYTES] {
        let mut out = [0; ASSOCIATED_BYTES];
        out[..19].copy_from_slice(DOMAIN);
        out[19..35].copy_from_slice(self.store.as_bytes());
        out[35..39].copy_from_slice(&self.org.0.to_be_bytes());
        out[39..47].copy_from_slice(&self.secret_id.to_be_bytes());
        out[47..51].copy_from_slice(&self.version.0.to_be_bytes());
        out[51..].copy_from_slice(&epoch.0.to_be_bytes());
        out
    }
}

/// Fresh random bytes for a data key.
pub(crate) fn generate(env: &dyn Env) -> Result<DataKey> {
    let mut key = DataKey::default();
    env.fill_random(&mut **key).map_err(Error::Randomness)?;
    Ok(key)
}

/// Seals a data key under an epoch, with a random nonce.
pub(crate) fn seal(
    env: &dyn Env,
    cipher: &Cipher,
    epoch: EpochNumber,
    place: &DataKeyPlace,
    key: &DataKey,
) -> Result<DataKeyRow> {
    let mut nonce = [0; 12];
    env.fill_random(&mut nonce).map_err(Error::Randomness)?;
    Ok(seal_with_nonce(cipher, epoch, place, key, nonce))
}

/// The same with a nonce that the caller drew at random.
pub(crate) fn seal_with_nonce(
    cipher: &Cipher,
    epoch: EpochNumber,
    place: &DataKeyPlace,
    key: &DataKey,
    nonce: [u8; 12],
) -> DataKeyRow {
    let mut buffer = Vec::with_capacity(48);
    buffer.extend_from_slice(&***key);
    cipher.seal(&nonce, &place.associated_data(epoch), &mut buffer);
    let mut sealed = [0; 48];
    sealed.copy_from_slice(&buffer);
    DataKeyRow { epoch, nonce, sealed }
}

/// Opens a data key. `None` when it does not open: damaged, or moved here from another place.
pub(crate) fn open(cipher: &Cipher, place: &DataKeyPlace, row: &DataKeyRow) -> Option<DataKey> {
    let mut buffer = Zeroizing::new(row.sealed);
    let opened = cipher
        .open_in_place(&row.nonce, &place.associated_data(row.epoch), &mut *buffer)
        .ok()?;
    let mut key = DataKey::default();
    key.copy_from_slice(buffer.get(..opened)?);
    Some(key)
}

impl EpochKey {
    /// The cipher of this epoch's wrapping key, for the length of a few operations.
    pub(crate) fn cipher(&self) -> Cipher {
        Cipher::new(self.wrapping_key())
    }
}
