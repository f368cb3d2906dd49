//! What OpenBao says, for a server that answers as a test says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub(crate) use keystead_tests::scripted::{Answer, Request, Server};
use serde_json::json;

pub(crate) fn errors(status: u16, errors: &[&str]) -> Answer {
    Answer::json(status, &json!({ "errors": errors }))
}

/// A login or renewal that succeeded.
pub(crate) fn auth(token: &str, seconds: u64, renewable: bool) -> Answer {
    Answer::ok(
        &json!({ "auth": { "client_token": token, "lease_duration": seconds, "renewable": renewable } }),
    )
}

/// Transit as it should be, for any key: what was wrapped is [`KEY`](super::KEY).
pub(crate) fn transit(request: &Request) -> Answer {
    if request.path.contains("/encrypt/") {
        Answer::ok(&json!({ "data": { "ciphertext": "vault:v3:AAAA", "key_version": 3 } }))
    } else if request.path.contains("/decrypt/") {
        Answer::ok(&json!({ "data": { "plaintext": STANDARD.encode(super::KEY) } }))
    } else if request.path.ends_with("/lookup-self") {
        Answer::ok(&json!({ "data": { "ttl": 3600, "renewable": true } }))
    } else {
        panic!("{} is beyond the least-privilege grant", request.path)
    }
}
