//! The emulators enforce what the harness's table says, and what they are known not to enforce they still do not: a
//! test that relies on a refusal would otherwise pass for nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keystead_tests::emulators::{Account, Emulator, Kind, allow, trust_web_identity};
use serde_json::{Value, json};

const CONTEXT: &str = "what each AWS emulator enforces";

fn encrypt(owner: &Account, key: &str) -> anyhow::Result<Value> {
    owner.kms(
        "Encrypt",
        &json!({ "KeyId": key, "Plaintext": STANDARD.encode([7; 32]), "EncryptionContext": { "a": "b" } }),
    )
}

fn decrypt(owner: &Account, key: &str, blob: &str, context: &Value) -> anyhow::Result<Vec<u8>> {
    let body = json!({ "KeyId": key, "CiphertextBlob": blob, "EncryptionContext": context });
    let answer = owner.kms("Decrypt", &body)?;
    Ok(STANDARD.decode(answer["Plaintext"].as_str().unwrap_or_default())?)
}

fn blob(answer: &Value) -> String {
    answer["CiphertextBlob"]
        .as_str()
        .expect("Encrypt answers with a blob")
        .to_owned()
}

fn with_last_byte_changed(blob: &str) -> String {
    let mut bytes = STANDARD.decode(blob).expect("a blob is base64");
    *bytes.last_mut().expect("a blob is not empty") ^= 1;
    STANDARD.encode(bytes)
}

#[track_caller]
fn refused_as<T>(result: anyhow::Result<T>, code: &str) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("it was not refused; {code} was expected"))
        .to_string();
    assert!(error.contains(code), "{error}");
}

#[test]
fn both_bind_the_encryption_context_and_know_their_keys() {
    for kind in [Kind::Moto, Kind::Ministack] {
        let Some(aws) = Emulator::shared_or_skip(kind, CONTEXT) else {
            return;
        };
        let owner = aws.account();
        let key = owner.create_key().unwrap();
        let blob = blob(&encrypt(&owner, &key).unwrap());
        assert_eq!(
            decrypt(&owner, &key, &blob, &json!({ "a": "b" })).unwrap(),
            [7; 32],
            "{kind:?}"
        );
        refused_as(
            decrypt(&owner, &key, &blob, &json!({ "a": "c" })),
            "InvalidCiphertextException",
        );
        let (rest, last) = key.split_at(key.len() - 1);
        let unknown = format!("{rest}{}", if last == "0" { "1" } else { "0" });
        refused_as(encrypt(&owner, &unknown), "NotFoundException");
    }
}

#[test]
fn moto_refuses_damage_and_other_keys_but_no_state() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Moto, CONTEXT) else {
        return;
    };
    let owner = aws.account();
    let (key, other) = (owner.create_key().unwrap(), owner.create_key().unwrap());
    let blob = blob(&encrypt(&owner, &key).unwrap());
    let context = json!({ "a": "b" });
    refused_as(
        decrypt(&owner, &key, &with_last_byte_changed(&blob), &context),
        "InvalidCiphertextException",
    );
    // A blob of moto's begins with its key's id.
    let mut unnamed = STANDARD.decode(&blob).unwrap();
    unnamed[0] ^= 1;
    refused_as(
        decrypt(&owner, &key, &STANDARD.encode(unnamed), &context),
        "InvalidCiphertextException",
    );
    refused_as(decrypt(&owner, &other, &blob, &context), "IncorrectKeyException");
    owner.disable_key(&key).unwrap();
    assert!(
        decrypt(&owner, &key, &blob, &context).is_ok(),
        "moto refuses disabled keys now: change the table"
    );
    owner.enable_key(&key).unwrap();
}

#[test]
fn ministack_refuses_by_state_but_not_damage() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, CONTEXT) else {
        return;
    };
    let owner = aws.account();
    let key = owner.create_key().unwrap();
    let blob = blob(&encrypt(&owner, &key).unwrap());
    let context = json!({ "a": "b" });
    let damaged = decrypt(&owner, &key, &with_last_byte_changed(&blob), &context);
    assert!(
        damaged.is_ok_and(|plaintext| plaintext != [7; 32]),
        "ministack refuses damage now: change the table"
    );
    owner.disable_key(&key).unwrap();
    refused_as(decrypt(&owner, &key, &blob, &context), "DisabledException");
    owner.enable_key(&key).unwrap();
    assert!(decrypt(&owner, &key, &blob, &context).is_ok());
    owner.schedule_key_deletion(&key).unwrap();
    refused_as(decrypt(&owner, &key, &blob, &context), "KMSInvalidStateException");
    owner.cancel_key_deletion(&key).unwrap();
    refused_as(decrypt(&owner, &key, &blob, &context), "DisabledException");
}

#[test]
fn an_own_emulator_pauses_goes_on_and_ends() {
    let Some(aws) = Emulator::own_or_skip(Kind::Ministack, CONTEXT) else {
        return;
    };
    let owner = aws.account();
    let key = owner.create_key().unwrap();
    aws.pause().unwrap();
    let asked = std::thread::spawn({
        let (owner, key) = (owner.clone(), key.clone());
        move || encrypt(&owner, &key)
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!asked.is_finished(), "a paused emulator answered");
    aws.resume().unwrap();
    asked.join().unwrap().unwrap();
    // As after a test that fails while it is paused.
    aws.pause().unwrap();
    drop(aws);
    assert!(encrypt(&owner, &key).is_err(), "a dropped emulator answered");
}

#[test]
fn ministack_makes_users_roles_and_accounts_of_their_own() {
    let Some(aws) = Emulator::shared_or_skip(Kind::Ministack, CONTEXT) else {
        return;
    };
    let owner = aws.account();
    let user = owner.create_user("harness").unwrap();
    owner
        .put_user_policy("harness", &allow(&["kms:Encrypt"], "*"))
        .unwrap();
    owner.delete_access_key("harness", &user).unwrap();
    let trust = trust_web_identity(owner.number(), "issuer.example", "aud", "sub");
    let role = owner.create_role("harness", &trust).unwrap();
    assert_eq!(role, format!("arn:aws:iam::{}:role/harness", owner.number()));
    owner
        .put_role_policy("harness", &allow(&["kms:Decrypt"], "*"))
        .unwrap();
    owner.update_trust("harness", &trust).unwrap();

    let other = aws.account_numbered("444455556666");
    let key = other.create_key().unwrap();
    assert!(key.contains(":444455556666:"), "{key}");
    refused_as(encrypt(&owner, &key), "NotFoundException");
}
