//! STREAM: the nonces under which a value's chunks are sealed, so that a value of any length is written and read
//! without being held whole, and still opens only as it was written.
//!
//! The construction is that of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance" (CRYPTO 2015): each chunk is sealed by itself, and its nonce holds its index and
//! whether it is the last. Drawn:
//!
//! ```text
//! | 0 .. 7       | 7 .. 11                  | 11             |
//! | seven zeros  | chunk index, big-endian  | 1 if last or 0 |
//! ```
//!
//! The paper's nonce also holds a random prefix that tells one stream under a key from the next. Here it is zeros,
//! because a content key seals one value, once: every secret version has a data key of its own. Under one key, then:
//!
//! - *No nonce repeats.* The index counts up, and only one chunk of a value has a given index.
//! - *Reordered, doubled, dropped*: a chunk opens at its own index alone.
//! - *Cut off*: the chunk that now comes last was sealed with the flag 0, and the reader opens what it meets last with
//!   the flag 1. *Gone on with*: the old last chunk was sealed with the flag 1.
//! - *Mixed*: a chunk of another value was sealed under another key.
//!
//! A value that fits one chunk is a stream of one: `chunk_nonce(0, true)`. A value that is written anew after a
//! failure is a new version with a new data key; should a caller err in that, AES-GCM-SIV gives away no more than
//! whether two chunks at the same index are equal.

use super::aead::NONCE_LEN;

/// The nonce of the chunk of this index, counted from 0; `last` for a value's last chunk, and for no other.
///
/// 2³² chunks are the most that a value can have. A writer that would need one more must refuse the value, not start
/// again at 0.
pub(crate) fn chunk_nonce(chunk_index: u32, last: bool) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[7..11].copy_from_slice(&chunk_index.to_be_bytes());
    nonce[11] = u8::from(last);
    nonce
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Cipher;
    use crate::crypto::aead::OpenFailed;

    /// Opens the chunks as a reader does that meets them in this order, the last one as the last.
    fn open_stream(cipher: &Cipher, chunks: &[Vec<u8>]) -> Result<Vec<u8>, OpenFailed> {
        let mut value = Vec::new();
        for (index, chunk) in (0..).zip(chunks) {
            let mut chunk = chunk.clone();
            let last = index as usize + 1 == chunks.len();
            let length = cipher.open_in_place(&chunk_nonce(index, last), b"value", &mut chunk)?;
            value.extend_from_slice(&chunk[..length]);
        }
        Ok(value)
    }

    fn sealed_stream(cipher: &Cipher, plain: &[&[u8]]) -> Vec<Vec<u8>> {
        let seal = |(index, chunk): (u32, &&[u8])| {
            let mut chunk = chunk.to_vec();
            cipher.seal(
                &chunk_nonce(index, index as usize + 1 == plain.len()),
                b"value",
                &mut chunk,
            );
            chunk
        };
        (0..).zip(plain).map(seal).collect()
    }

    #[test]
    fn the_nonce_is_drawn_as_documented() {
        assert_eq!(chunk_nonce(0, false), [0; 12]);
        assert_eq!(
            chunk_nonce(0x0102_0304, true),
            [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1]
        );
    }

    #[test]
    fn no_two_chunks_share_a_nonce() {
        let indices = (0..70_000)
            .chain(u32::MAX - 1_000..=u32::MAX)
            .chain((0..32).map(|bit| 1 << bit));
        let indices: HashSet<u32> = indices.collect();
        let nonces = indices
            .iter()
            .flat_map(|&index| [chunk_nonce(index, false), chunk_nonce(index, true)]);
        assert_eq!(nonces.collect::<HashSet<_>>().len(), 2 * indices.len());
    }

    #[test]
    fn only_the_chunks_as_they_were_written_open() {
        let cipher = Cipher::new(&[7; 32]);
        let plain: [&[u8]; 3] = [b"first ", b"first ", b"third"];
        let sealed = sealed_stream(&cipher, &plain);
        assert_eq!(
            open_stream(&cipher, &sealed).as_deref(),
            Ok(plain.concat().as_slice())
        );

        // Every other sequence of one to four of the chunks: each truncation, reordering, doubling and extension. The
        // first two chunks have the same plaintext, so nothing but the nonces tells them apart.
        let mut refused = 0;
        for length in 1..=4 {
            for code in 0..3_usize.pow(length) {
                let picks: Vec<usize> = (0..length).map(|place| code / 3_usize.pow(place) % 3).collect();
                if picks == [0, 1, 2] {
                    continue;
                }
                let chunks: Vec<Vec<u8>> = picks.iter().map(|&pick| sealed[pick].clone()).collect();
                assert_eq!(open_stream(&cipher, &chunks), Err(OpenFailed), "{picks:?}");
                refused += 1;
            }
        }
        assert_eq!(refused, 3 + 9 + 27 + 81 - 1);
    }

    #[test]
    fn a_chunk_of_another_value_does_not_open() {
        let (ours, theirs) = (Cipher::new(&[7; 32]), Cipher::new(&[8; 32]));
        let mut mixed = sealed_stream(&ours, &[b"one", b"two"]);
        mixed[1] = sealed_stream(&theirs, &[b"one", b"two"]).remove(1);
        assert_eq!(open_stream(&ours, &mixed), Err(OpenFailed));
    }

    proptest! {
        #[test]
        fn different_places_have_different_nonces(a: (u32, bool), b: (u32, bool)) {
            prop_assert_eq!(chunk_nonce(a.0, a.1) == chunk_nonce(b.0, b.1), a == b);
        }
    }
}
