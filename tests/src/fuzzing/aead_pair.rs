//! Both AEAD implementations beside each other: the same bytes sealed, the same things opened and refused.

use arbitrary::{Arbitrary, Unstructured};
use keystead::simulation::Aead;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    key: [u8; 32],
    nonce: [u8; 12],
    aad: &'a [u8],
    /// Which bit of what was sealed is flipped before it is opened; `None`: it is opened as it is.
    flip: Option<u16>,
    /// Bytes that were never sealed, to be opened as well.
    foreign: &'a [u8],
    plaintext: &'a [u8],
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let (key, nonce, aad) = (&input.key, &input.nonce, input.aad);
    let sealed = Aead::Portable.seal(key, nonce, aad, input.plaintext);
    assert_eq!(sealed.len(), input.plaintext.len() + 16);
    let mut flipped = sealed.clone();
    if let Some(bit) = input.flip {
        let bit = usize::from(bit) % (8 * flipped.len());
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    for aead in Aead::ALL {
        assert_eq!(
            aead.seal(key, nonce, aad, input.plaintext),
            sealed,
            "{aead:?} seals other bytes"
        );
        let mut buffer = flipped.clone();
        let opened = aead.open(key, nonce, aad, &mut buffer);
        match input.flip {
            None => {
                assert_eq!(
                    opened,
                    Some(input.plaintext.len()),
                    "{aead:?} does not open what was sealed"
                );
                assert_eq!(&buffer[..input.plaintext.len()], input.plaintext);
            }
            Some(_) => {
                assert_eq!(opened, None, "{aead:?} opens what was changed");
                assert!(
                    buffer.iter().all(|byte| *byte == 0),
                    "{aead:?} leaves something of what did not open"
                );
            }
        }
        let opens = aead.open(key, nonce, aad, &mut input.foreign.to_vec());
        assert_eq!(
            opens,
            Aead::Portable.open(key, nonce, aad, &mut input.foreign.to_vec()),
            "{aead:?}"
        );
    }
}
