//! What KMS and STS say, for a server that answers as a test says.

pub(crate) use keystead_tests::scripted::{Answer, Request, Server};
use serde_json::{Value, json};

const STS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// `TrentService.Encrypt` for a call of KMS, `sts` for one of STS.
pub(crate) fn target(request: &Request) -> &str {
    match request.header("x-amz-target") {
        "" => "sts",
        target => target,
    }
}

/// An error of KMS, in the JSON that KMS speaks.
pub(crate) fn kms_error(code: &str, message: &str) -> Answer {
    let status = if code.contains("Internal") { 500 } else { 400 };
    Answer::json(status, &json!({ "__type": code, "message": message }))
}

/// An error of STS, in the XML that STS speaks.
pub(crate) fn sts_error(status: u16, code: &str, message: &str) -> Answer {
    Answer::raw(
        status,
        &format!(
            "<ErrorResponse xmlns=\"{STS}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        ),
    )
}

/// A session as `action` of STS gives it out, until `expiry` (RFC 3339).
pub(crate) fn session(action: &str, access_key_id: &str, expiry: &str) -> Answer {
    Answer::raw(
        200,
        &format!(
            "<{action}Response xmlns=\"{STS}\"><{action}Result><Credentials><AccessKeyId>{access_key_id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t-{access_key_id}</SessionToken><Expiration>{expiry}</Expiration></Credentials></{action}Result></{action}Response>"
        ),
    )
}

/// Settings that lead to this server, with attempts enough to see retries and waits that end soon.
pub(crate) fn settings(server: &Server) -> Value {
    json!({
        "endpoint_url": server.address(), "sts_endpoint_url": server.address(),
        "access_key_id": "AKIDTEST", "secret_access_key": "secret", "max_attempts": 1,
    })
}
