//! One key in a KMS that is scripted: what it answers when all is well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keystead_backend::Wrapped;
use serde_json::json;

use super::KEY;
use super::server::{Answer, Request, kms_error, target};

pub(crate) const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub(crate) const OTHER: &str = "arn:aws:kms:eu-west-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab";
pub(crate) const ALIAS: &str = "arn:aws:kms:eu-west-1:111122223333:alias/acme";
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/Keystead";

pub(crate) fn wrapped() -> Wrapped {
    Wrapped {
        blob: b"blob".to_vec(),
        key_id: ARN.into(),
        metadata: Vec::new(),
    }
}

pub(crate) fn encrypted(key_id: &str) -> Answer {
    Answer::ok(&json!({ "CiphertextBlob": STANDARD.encode("blob"), "KeyId": key_id }))
}

pub(crate) fn decrypted(key_id: &str) -> Answer {
    Answer::ok(&json!({ "Plaintext": STANDARD.encode(KEY), "KeyId": key_id }))
}

/// KMS as it should be, for one key.
pub(crate) fn kms(request: &Request) -> Answer {
    match target(request) {
        "TrentService.Encrypt" => encrypted(ARN),
        "TrentService.Decrypt" if request.json()["DryRun"] == json!(true) => {
            kms_error("DryRunOperationException", "The request would have succeeded")
        }
        "TrentService.Decrypt" => decrypted(ARN),
        other => panic!("{other} is beyond the least-privilege grant"),
    }
}
