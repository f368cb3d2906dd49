//! The derivations against BLAKE3's published vectors and against the vectors that pin Keystead's own format; both
//! stand in `tests/vectors/`, with how they were made.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::crypto::unhex;

#[derive(Deserialize)]
struct Vectors {
    blake3: Published,
    keystead: Own,
}

#[derive(Deserialize)]
struct Published {
    context: String,
    key: String,
    cases: Vec<PublishedCase>,
}

/// Input of this length: the bytes 0 to 250, over and over. Outputs in hexadecimal, 131 bytes each.
#[derive(Deserialize)]
struct PublishedCase {
    input_len: usize,
    hash: String,
    keyed_hash: String,
    derive_key: String,
}

#[derive(Deserialize)]
struct Own {
    pairs: Vec<PairCase>,
    place_tags: Vec<PlaceCase>,
    chain_hashes: Vec<ChainCase>,
    context_hashes: Vec<ContextCase>,
}

#[derive(Deserialize)]
struct PairCase {
    label: String,
    key: String,
    context: String,
    derived_key: String,
    commitment: String,
}

#[derive(Deserialize)]
struct PlaceCase {
    store_id: String,
    table: u8,
    row_key: String,
    body: String,
    tag: String,
}

#[derive(Deserialize)]
struct ChainCase {
    label: String,
    previous: String,
    parts: Vec<String>,
    hash: String,
}

#[derive(Deserialize)]
struct ContextCase {
    canonical: String,
    hash: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/vectors/blake3.json")).unwrap()
}

fn published_input(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    unhex(hex).try_into().unwrap()
}

fn label(context: &str) -> &'static Label {
    [
        &EPOCH_WRAPPING_KEY,
        &CONTENT_KEY,
        &AUDIT_CHAIN,
        &EPOCH_CHAIN,
        &PLACE,
    ]
    .into_iter()
    .find(|label| label.context == context)
    .expect("the vectors name the format's labels")
}

#[test]
fn blake3_gives_its_published_vectors() {
    let published = vectors().blake3;
    let label = Label::new(Box::leak(published.context.into_boxed_str()));
    let key: [u8; 32] = published.key.as_bytes().try_into().unwrap();
    assert_eq!(published.cases.len(), 35);
    for case in &published.cases {
        let input = published_input(case.input_len);
        let mut hashed = [0; 131];
        Hasher::new().update(&input).finalize_xof().fill(&mut hashed);
        assert_eq!(hashed[..], unhex(&case.hash), "hash of {} bytes", case.input_len);
        let mut derived = [0; 131];
        label.hasher().update(&input).finalize_xof().fill(&mut derived);
        assert_eq!(
            derived[..],
            unhex(&case.derive_key),
            "derive_key of {} bytes",
            case.input_len
        );
        let mut keyed = [0; 131];
        Hasher::new_keyed(&key)
            .update(&input)
            .finalize_xof()
            .fill(&mut keyed);
        assert_eq!(
            keyed[..],
            unhex(&case.keyed_hash),
            "keyed_hash of {} bytes",
            case.input_len
        );
    }
}

#[test]
fn a_pair_is_the_published_derive_key_of_64_bytes() {
    let published = vectors().blake3;
    let label = Label::new(Box::leak(published.context.into_boxed_str()));
    let case = published.cases.iter().find(|case| case.input_len == 64).unwrap();
    let input = published_input(64);
    let (key, context) = (input[..32].try_into().unwrap(), input[32..].try_into().unwrap());
    let pair = derive_pair(&label, &key, &context);
    let expected = unhex(&case.derive_key);
    assert_eq!(pair.key[..], expected[..32]);
    assert_eq!(pair.commitment.as_bytes()[..], expected[32..64]);
}

#[test]
fn pairs_are_those_of_the_format() {
    let cases = vectors().keystead.pairs;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let pair = derive_pair(label(&case.label), &array(&case.key), &array(&case.context));
        assert_eq!(pair.key[..], unhex(&case.derived_key), "{}", case.label);
        assert_eq!(
            pair.commitment,
            Commitment::from_bytes(array(&case.commitment)),
            "{}",
            case.label
        );
    }
}

#[test]
fn place_tags_are_those_of_the_format() {
    let cases = vectors().keystead.place_tags;
    assert_eq!(cases.len(), 3);
    for case in cases {
        let key = PlaceKey::of_store(&array(&case.store_id));
        let tag = place_tag(&key, case.table, &unhex(&case.row_key), &unhex(&case.body));
        assert_eq!(tag[..], unhex(&case.tag));
    }
}

#[test]
fn chain_hashes_are_those_of_the_format() {
    let cases = vectors().keystead.chain_hashes;
    assert_eq!(cases.len(), 4);
    for case in cases {
        let parts: Vec<Vec<u8>> = case.parts.iter().map(|part| unhex(part)).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(
            chain_hash(label(&case.label), &array(&case.previous), &parts)[..],
            unhex(&case.hash)
        );
    }
}

#[test]
fn context_hashes_are_those_of_the_format() {
    let cases = vectors().keystead.context_hashes;
    assert_eq!(cases.len(), 2);
    for case in cases {
        assert_eq!(context_hash(&unhex(&case.canonical))[..], unhex(&case.hash));
    }
}

#[test]
fn a_pair_changes_with_label_key_and_context() {
    let base = derive_pair(&CONTENT_KEY, &[1; 32], &[2; 32]);
    let others = [
        derive_pair(&EPOCH_WRAPPING_KEY, &[1; 32], &[2; 32]),
        derive_pair(&CONTENT_KEY, &[3; 32], &[2; 32]),
        derive_pair(&CONTENT_KEY, &[1; 32], &[3; 32]),
    ];
    for other in &others {
        assert_ne!(base.key, other.key);
        assert_ne!(base.commitment, other.commitment);
    }
    assert_ne!(&base.key[..], base.commitment.as_bytes());
}

#[test]
fn a_commitment_prints_its_first_bytes_and_differs_by_any_bit() {
    let commitment = Commitment::from_bytes([0xab; 32]);
    assert_eq!(format!("{commitment:?}"), "Commitment(abababab…)");
    assert_eq!(commitment, Commitment::from_bytes([0xab; 32]));
    for bit in 0..256 {
        let mut bytes = [0xab; 32];
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(commitment, Commitment::from_bytes(bytes), "bit {bit}");
    }
}

#[test]
fn a_row_moved_to_another_key_table_or_store_has_another_tag() {
    let key = PlaceKey::of_store(&[1; 16]);
    let base = place_tag(&key, 1, b"row", b"body");
    assert_ne!(base, place_tag(&key, 2, b"row", b"body"));
    assert_ne!(base, place_tag(&key, 1, b"rob", b"body"));
    assert_ne!(base, place_tag(&key, 1, b"row", b"bodz"));
    assert_ne!(base, place_tag(&PlaceKey::of_store(&[2; 16]), 1, b"row", b"body"));
    assert_ne!(
        base,
        place_tag(&key, 1, b"rowb", b"ody"),
        "bytes do not wander between row key and body"
    );
}

#[test]
fn a_chain_tells_apart_its_kind_its_past_and_how_its_parts_are_cut() {
    let base = chain_hash(&AUDIT_CHAIN, &[0; 32], &[b"ab", b"c"]);
    assert_ne!(base, chain_hash(&EPOCH_CHAIN, &[0; 32], &[b"ab", b"c"]));
    assert_ne!(base, chain_hash(&AUDIT_CHAIN, &[1; 32], &[b"ab", b"c"]));
    assert_ne!(base, chain_hash(&AUDIT_CHAIN, &[0; 32], &[b"a", b"bc"]));
    assert_ne!(base, chain_hash(&AUDIT_CHAIN, &[0; 32], &[b"abc"]));
    assert_ne!(base, chain_hash(&AUDIT_CHAIN, &[0; 32], &[b"ab", b"c", b""]));
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_row_changes_its_tag(
        table: u8,
        row_key in proptest::collection::vec(any::<u8>(), 1..80),
        body in proptest::collection::vec(any::<u8>(), 1..3000),
        at: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let key = PlaceKey::of_store(&[9; 16]);
        let base = place_tag(&key, table, &row_key, &body);
        let mut moved = row_key.clone();
        moved[at.index(row_key.len())] ^= 1 << bit;
        prop_assert_ne!(base, place_tag(&key, table, &moved, &body));
        let mut damaged = body.clone();
        damaged[at.index(body.len())] ^= 1 << bit;
        prop_assert_ne!(base, place_tag(&key, table, &row_key, &damaged));
    }
}
