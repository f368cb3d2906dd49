//! What AES key wrap wraps, since it takes no associated data: the key in a frame that names its context.
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | `KSTDP11` and the version, 1 |
//! | 32 | SHA-256 of the context's canonical bytes |
//! | 2 | length of the key, little-endian |
//! | … | the key, then zeroes up to a multiple of 8 |
//!
//! Key wrap authenticates all of it, and the frame is opened for its own context alone: so the context is bound, as
//! AES-GCM binds it.

use keystead_backend::{Context, LockedBytes};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const MAGIC: &[u8; 8] = b"KSTDP11\x01";
const HEAD_BYTES: usize = 8 + 32 + 2;

/// The frame of a key of at most 65535 bytes.
pub(crate) fn framed(context: &Context, key: &[u8]) -> LockedBytes {
    let length = u16::try_from(key.len()).expect("the backend takes keys of 256 bytes at most");
    let made: Result<LockedBytes, std::convert::Infallible> =
        LockedBytes::fill_with((HEAD_BYTES + key.len()).next_multiple_of(8), |out| {
            out[..8].copy_from_slice(MAGIC);
            out[8..40].copy_from_slice(&hash(context));
            out[40..42].copy_from_slice(&length.to_le_bytes());
            out[HEAD_BYTES..HEAD_BYTES + key.len()].copy_from_slice(key);
            Ok(())
        });
    match made {
        Ok(frame) => frame,
    }
}

/// The key in a frame; `None` when this is no frame, or another context's.
pub(crate) fn unframed(context: &Context, frame: &[u8]) -> Option<LockedBytes> {
    let (head, rest) = frame.split_at_checked(HEAD_BYTES)?;
    let length = usize::from(u16::from_le_bytes([head[40], head[41]]));
    if frame.len() != (HEAD_BYTES + length).next_multiple_of(8) {
        return None;
    }
    let (key, padding) = rest.split_at_checked(length)?;
    let is_ours =
        head[..8].ct_eq(MAGIC) & head[8..40].ct_eq(&hash(context)) & padding.ct_eq(&[0; 8][..padding.len()]);
    bool::from(is_ours).then(|| LockedBytes::copy_from(key))
}

fn hash(context: &Context) -> [u8; 32] {
    Sha256::digest(context.canonical_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_opens_under_its_own_context_alone() {
        let context = Context::new([("epoch", "1")]);
        for length in 0..=256 {
            let key = vec![7; length];
            let frame = framed(&context, &key);
            assert_eq!(frame.as_slice().len() % 8, 0);
            assert_eq!(unframed(&context, frame.as_slice()).unwrap().as_slice(), key);
            assert!(unframed(&Context::new([("epoch", "2")]), frame.as_slice()).is_none());
            for place in [0, 7, 8, 39, 41] {
                let mut damaged = frame.as_slice().to_vec();
                damaged[place] ^= 1;
                assert!(unframed(&context, &damaged).is_none(), "{place}");
            }
            assert!(unframed(&context, &frame.as_slice()[..frame.as_slice().len() - 8]).is_none());
            assert!(unframed(&context, &[frame.as_slice(), &[0; 8]].concat()).is_none());
        }
        assert!(unframed(&context, &[]).is_none());
    }
}
