//! Policy documents, and tokens of an issuer that no signature proves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An identity policy that allows these actions on this resource (an ARN, or `*`).
pub fn allow(actions: &[&str], resource: &str) -> Value {
    document(json!({ "Effect": "Allow", "Action": actions, "Resource": resource }))
}

/// A trust policy: identities of the account `number` may assume the role, with this external id if one is given.
pub fn trust_account(number: &str, external_id: Option<&str>) -> Value {
    let mut statement = json!({
        "Effect": "Allow",
        "Principal": { "AWS": format!("arn:aws:iam::{number}:root") },
        "Action": "sts:AssumeRole",
    });
    if let Some(id) = external_id {
        statement["Condition"] = json!({ "StringEquals": { "sts:ExternalId": id } });
    }
    document(statement)
}

/// A trust policy for a role of the account `number`: whoever has a token of `issuer` (a host name) for this audience
/// and subject may assume the role.
pub fn trust_web_identity(number: &str, issuer: &str, audience: &str, subject: &str) -> Value {
    document(json!({
        "Effect": "Allow",
        "Principal": { "Federated": format!("arn:aws:iam::{number}:oidc-provider/{issuer}") },
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": { "StringEquals": {
            format!("{issuer}:aud"): audience,
            format!("{issuer}:sub"): subject,
        } },
    }))
}

/// An OpenID Connect token of `issuer` (a host name) with a signature that is none; ministack does not check it.
pub fn unsigned_token(issuer: &str, audience: &str, subject: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "RS256", "typ": "JWT", "kid": "test" }));
    let claims =
        part(json!({ "iss": format!("https://{issuer}"), "aud": audience, "sub": subject, "iat": 0 }));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode("no signature"))
}

fn document(statement: Value) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}
