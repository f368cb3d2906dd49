//! Against an emulator that checks policies: users, roles, tokens, and what happens when a grant is taken away.

mod common;

use std::sync::Arc;

use common::{KEY, TestHost, assert_fails, call, open, open_with, unwrap, wrap};
use keystead_backend::{ErrorCode, KeyInstance};
use keystead_tests::emulators::{
    Account, Emulator, Kind, allow, trust_account, trust_web_identity, unsigned_token,
};
use serde_json::{Value, json};

const ISSUER: &str = "tokens.saas.example";
const AUDIENCE: &str = "aws:acme";
const SUBJECT: &str = "saas:cmk:vault:acme";
const BOTH: &[&str] = &["kms:Encrypt", "kms:Decrypt"];

fn aws(left_out: &str) -> Option<&'static Emulator> {
    Emulator::shared_or_skip(Kind::Ministack, left_out)
}

/// A role for tokens of the issuer, with the least-privilege grant on a new key: the role's and the key's ARN.
fn role_and_key(owner: &Account, name: &str) -> (String, String) {
    let key = owner.create_key().unwrap();
    let role = owner
        .create_role(
            name,
            &trust_web_identity(owner.number(), ISSUER, AUDIENCE, SUBJECT),
        )
        .unwrap();
    owner.put_role_policy(name, &allow(BOTH, &key)).unwrap();
    (role, key)
}

fn minted(key: &str, role: &str) -> Value {
    json!({ "key_arn": key, "role_arn": role, "web_identity": { "audience": AUDIENCE } })
}

/// Settings with credentials that are worth nothing: what works, works by the role.
fn settings(aws: &Emulator) -> Value {
    json!({
        "endpoint_url": aws.endpoint(), "sts_endpoint_url": aws.endpoint(),
        "access_key_id": "AKIANOBODY", "secret_access_key": "nothing",
    })
}

#[test]
fn encrypt_and_decrypt_on_the_one_key_are_grant_enough() {
    let Some(aws) = aws("the least-privilege grant") else {
        return;
    };
    let owner = aws.account();
    let arn = owner.create_key().unwrap();
    let user = owner.create_user("least").unwrap();
    owner.put_user_policy("least", &allow(BOTH, &arn)).unwrap();
    let key = open(&aws.settings_for(&user), &json!({ "key_arn": arn }));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!(key.status(&call()).unwrap().key_id, arn);
}

#[test]
fn a_missing_permission_is_named() {
    let Some(aws) = aws("missing permissions") else {
        return;
    };
    let owner = aws.account();
    let arn = owner.create_key().unwrap();
    let user = owner.create_user("partial").unwrap();
    let key = open(&aws.settings_for(&user), &json!({ "key_arn": arn }));
    assert_fails(
        wrap(&*key),
        ErrorCode::AccessDenied,
        &[&arn, "user/partial", "must allow kms:Encrypt"],
    );

    owner
        .put_user_policy("partial", &allow(&["kms:Encrypt"], &arn))
        .unwrap();
    let wrapped = wrap(&*key).unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::AccessDenied,
        &[&arn, "must allow kms:Decrypt"],
    );
    assert_fails(
        key.status(&call()),
        ErrorCode::AccessDenied,
        &["must allow kms:Decrypt"],
    );
}

#[test]
fn credentials_that_aws_does_not_know_or_no_longer_knows_are_unauthenticated() {
    let Some(aws) = aws("unknown and deleted credentials") else {
        return;
    };
    let owner = aws.account();
    let arn = owner.create_key().unwrap();
    let key = open(&settings(aws), &json!({ "key_arn": arn }));
    assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &[&arn, "credentials"]);

    let user = owner.create_user("leaver").unwrap();
    owner.put_user_policy("leaver", &allow(BOTH, &arn)).unwrap();
    let mut wrong = user.clone();
    wrong.secret = "wrong".into();
    let key = open(&aws.settings_for(&wrong), &json!({ "key_arn": arn }));
    let error = assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &[&arn]);
    assert!(!error.message.contains(&user.secret));

    let key = open(&aws.settings_for(&user), &json!({ "key_arn": arn }));
    let wrapped = wrap(&*key).unwrap();
    owner.delete_access_key("leaver", &user).unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unauthenticated, &[&arn]);
}

#[test]
fn a_key_policy_can_take_the_key_away() {
    let Some(aws) = aws("revocation by key policy") else {
        return;
    };
    let owner = aws.account();
    let arn = owner.create_key().unwrap();
    let user = owner.create_user("policed").unwrap();
    let policy = |effect: &str| {
        json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": effect, "Action": "kms:*", "Resource": "*",
            "Principal": { "AWS": format!("arn:aws:iam::{}:user/policed", owner.number()) },
        }] })
    };
    owner.put_key_policy(&arn, &policy("Allow")).unwrap();
    let key = open(&aws.settings_for(&user), &json!({ "key_arn": arn }));
    let wrapped = wrap(&*key).unwrap();
    owner.put_key_policy(&arn, &policy("Deny")).unwrap();
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::AccessDenied,
        &[&arn, "kms:Decrypt"],
    );
    owner.put_key_policy(&arn, &policy("Allow")).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_role_is_used_by_a_token_that_the_application_mints() {
    let Some(aws) = aws("roles by minted tokens") else {
        return;
    };
    let (role, arn) = role_and_key(&aws.account(), "minted");
    let host = TestHost::minting(unsigned_token(ISSUER, AUDIENCE, SUBJECT));
    let key = open_with(Arc::clone(&host), &settings(aws), &minted(&arn, &role));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!(host.audiences(), [AUDIENCE], "one token for one session");
}

#[test]
fn a_role_is_used_by_a_token_from_the_settings_file() {
    let Some(aws) = aws("roles by a token file") else {
        return;
    };
    let (role, arn) = role_and_key(&aws.account(), "filed");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let mut settings = settings(aws);
    settings["token_file"] = json!(path);
    let config = json!({ "key_arn": arn, "role_arn": role, "web_identity": { "token_file": true } });
    let key = open(&settings, &config);
    let said = path.display().to_string();
    assert_fails(wrap(&*key), ErrorCode::Unavailable, &[&said]);
    std::fs::write(&path, format!("{}\n", unsigned_token(ISSUER, AUDIENCE, SUBJECT))).unwrap();
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_token_for_another_organization_does_not_get_the_role() {
    let Some(aws) = aws("tokens of other organizations") else {
        return;
    };
    let (role, arn) = role_and_key(&aws.account(), "guarded");
    for (issuer, audience, subject) in [
        ("elsewhere.example", AUDIENCE, SUBJECT),
        (ISSUER, "aws:globex", SUBJECT),
        (ISSUER, AUDIENCE, "saas:cmk:vault:globex"),
    ] {
        let token = unsigned_token(issuer, audience, subject);
        let key = open_with(
            TestHost::minting(token.as_str()),
            &settings(aws),
            &minted(&arn, &role),
        );
        let words = [role.as_str(), "trust policy", "sts:AssumeRoleWithWebIdentity"];
        let error = assert_fails(wrap(&*key), ErrorCode::AccessDenied, &words);
        assert!(
            !token.split('.').any(|part| error.message.contains(part)),
            "{error}"
        );
    }
}

#[test]
fn taking_the_roles_policy_away_revokes_the_key_and_giving_it_back_restores_it() {
    let Some(aws) = aws("revocation by a role's policy") else {
        return;
    };
    let owner = aws.account();
    let (role, arn) = role_and_key(&owner, "revoked");
    let host = TestHost::minting(unsigned_token(ISSUER, AUDIENCE, SUBJECT));
    let key = open_with(host, &settings(aws), &minted(&arn, &role));
    let wrapped = wrap(&*key).unwrap();
    owner
        .put_role_policy("revoked", &allow(&["kms:DescribeKey"], &arn))
        .unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::AccessDenied, &[&arn]);
    owner.put_role_policy("revoked", &allow(BOTH, &arn)).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn changing_the_roles_trust_revokes_it_at_the_next_session() {
    let Some(aws) = aws("revocation by a role's trust policy") else {
        return;
    };
    let owner = aws.account();
    let (role, arn) = role_and_key(&owner, "distrusted");
    let fresh = || -> Box<dyn KeyInstance> {
        open_with(
            TestHost::minting(unsigned_token(ISSUER, AUDIENCE, SUBJECT)),
            &settings(aws),
            &minted(&arn, &role),
        )
    };
    let wrapped = wrap(&*fresh()).unwrap();
    owner
        .update_trust(
            "distrusted",
            &trust_web_identity(owner.number(), ISSUER, AUDIENCE, "nobody"),
        )
        .unwrap();
    assert_fails(unwrap(&*fresh(), &wrapped), ErrorCode::AccessDenied, &[&role]);
}

#[test]
fn a_role_of_another_account_is_assumed_with_its_external_id_alone() {
    let Some(aws) = aws("roles of other accounts") else {
        return;
    };
    let (saas, customer) = (aws.account(), aws.account_numbered("444455556666"));
    let arn = customer.create_key().unwrap();
    let role = customer
        .create_role("for-saas", &trust_account(saas.number(), Some("acme-77")))
        .unwrap();
    customer.put_role_policy("for-saas", &allow(BOTH, &arn)).unwrap();

    let config = json!({ "key_arn": arn, "role_arn": role, "external_id": "acme-77" });
    let key = open(&aws.settings(), &config);
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(wrapped.key_id, arn);
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    for id in [json!("acme-78"), Value::Null] {
        let config = json!({ "key_arn": arn, "role_arn": role, "external_id": id });
        let key = open(&aws.settings(), &config);
        assert_fails(wrap(&*key), ErrorCode::AccessDenied, &[&role, "external id"]);
    }
}
