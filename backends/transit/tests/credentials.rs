//! By whom a key is used: a token in a file, an AppRole, a role with identity tokens; how tokens are kept, renewed and got anew.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::server::{Server, auth, errors, transit};
use common::{KEY, Secret, TestHost, assert_fails, call, context, open, open_with, settings, unwrap, wrap};
use keystead_backend::{Call, ErrorCode};
use keystead_tests::emulators::OpenBao;
use serde_json::{Value, json};

fn by_role(key: &str, audience: &str) -> Value {
    json!({ "key": key, "role": key, "identity_token": { "audience": audience } })
}

/// A key with its policy, a JWT method at `mount`, and a role at it for the subject `cmk:{key}`.
fn key_with_role(bao: &OpenBao, key: &str, mount: &str, more: &Value) {
    bao.create_key(None, key).unwrap();
    bao.put_policy(None, key, &OpenBao::grant(key)).unwrap();
    bao.enable_jwt(None, mount, "keys").unwrap();
    bao.create_role(
        None,
        mount,
        key,
        &format!("bao:{key}"),
        &format!("cmk:{key}"),
        more,
    )
    .unwrap();
}

fn minting(bao: &'static OpenBao, subject: &'static str) -> Arc<TestHost> {
    common::host(move |audience| Some(bao.identity_token(audience, subject, &json!({})).unwrap()))
}

#[test]
fn a_role_is_logged_in_to_once_for_many_calls_by_the_token_that_the_application_mints() {
    let Some(bao) = OpenBao::shared_or_skip("logging in by tokens of the application") else {
        return;
    };
    key_with_role(bao, "minted", "jwt", &json!({}));
    let host = minting(bao, "cmk:minted");
    let key = open_with(
        Arc::clone(&host),
        &json!({ "address": bao.address() }),
        &by_role("minted", "bao:minted"),
    );
    for _ in 0..3 {
        let wrapped = wrap(&*key).unwrap();
        assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    }
    assert_eq!(host.audiences(), ["bao:minted"]);
    // Looked at by the owner: the token may use this key and no other.
    bao.create_key(None, "minted-other").unwrap();
    let config =
        json!({ "key": "minted-other", "role": "minted", "identity_token": { "audience": "bao:minted" } });
    let other = open_with(host, &json!({ "address": bao.address() }), &config);
    assert_fails(wrap(&*other), ErrorCode::AccessDenied, &["minted-other"]);
}

#[test]
fn a_token_for_another_audience_or_subject_or_from_elsewhere_or_expired_is_refused_and_not_repeated() {
    let Some(bao) = OpenBao::shared_or_skip("identity tokens that do not fit") else {
        return;
    };
    key_with_role(bao, "strict", "jwt-strict", &json!({}));
    let token =
        |audience: &str, subject: &str, more: Value| bao.identity_token(audience, subject, &more).unwrap();
    let good = token("bao:strict", "cmk:strict", json!({}));
    let forged = {
        let (start, signature) = good.rsplit_once('.').unwrap();
        let other = token("bao:strict", "cmk:strict", json!({ "jti": "x" }));
        let (_, theirs) = other.rsplit_once('.').unwrap();
        assert_ne!(signature, theirs);
        format!("{start}.{theirs}")
    };
    let cases = [
        (token("bao:other", "cmk:strict", json!({})), "audience"),
        (token("bao:strict", "cmk:other", json!({})), "sub"),
        (
            token(
                "bao:strict",
                "cmk:strict",
                json!({ "iss": "https://evil.example" }),
            ),
            "iss",
        ),
        (
            token(
                "bao:strict",
                "cmk:strict",
                json!({ "exp": 1_700_000_000, "iat": 1_600_000_000, "nbf": 1_600_000_000 }),
            ),
            "expired",
        ),
        (forged, "signature"),
        ("a.b.c".to_owned(), "token"),
    ];
    let open_by = |minted: String| {
        let mut config = by_role("strict", "bao:strict");
        config["role_mount"] = json!("jwt-strict");
        let host = common::host(move |_| Some(minted.clone()));
        open_with(
            host,
            &json!({ "address": bao.address(), "max_attempts": 1 }),
            &config,
        )
    };
    for (minted, words) in cases {
        let key = open_by(minted.clone());
        let error = assert_fails(
            wrap(&*key),
            ErrorCode::Unauthenticated,
            &["role strict at jwt-strict", words],
        );
        for part in minted.split('.').filter(|part| part.len() > 8) {
            assert!(!error.message.contains(part), "{error}");
        }
    }
    wrap(&*open_by(good)).unwrap();
    // Neither is a role or a method that is not there.
    for (field, value) in [("role", "nobody"), ("role_mount", "nowhere")] {
        let mut config = by_role("strict", "bao:strict");
        config[field] = json!(value);
        let key = open_with(
            minting(bao, "cmk:strict"),
            &json!({ "address": bao.address() }),
            &config,
        );
        assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &[value]);
    }
}

#[test]
fn a_token_file_of_a_workload_is_read_anew_for_each_login() {
    let Some(bao) = OpenBao::shared_or_skip("workload identity in a file") else {
        return;
    };
    // One use, so that each call needs a login.
    key_with_role(bao, "workload", "jwt-file", &json!({ "token_num_uses": 1 }));
    let file = Secret::new(
        &bao.identity_token("bao:workload", "cmk:workload", &json!({}))
            .unwrap(),
    );
    let settings = json!({ "address": bao.address(), "token_file": file.path });
    let config = json!({ "key": "workload", "role": "workload", "role_mount": "jwt-file", "identity_token": { "token_file": true } });
    let key = open(&settings, &config);
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(
        unwrap(&*key, &wrapped).unwrap(),
        KEY,
        "the spent token is replaced within the call"
    );
    file.replace(
        &bao.identity_token("bao:workload", "cmk:somebody", &json!({}))
            .unwrap(),
    );
    assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Unauthenticated,
        &["role workload"],
    );
    file.replace(
        &bao.identity_token("bao:workload", "cmk:workload", &json!({}))
            .unwrap(),
    );
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    std::fs::remove_file(&file.path).unwrap();
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::Unavailable, &["token_file"]);
}

#[test]
fn an_issuer_whose_keys_the_server_cannot_fetch_is_an_outage() {
    let Some(bao) = OpenBao::shared_or_skip("issuers that the server does not reach") else {
        return;
    };
    bao.create_key(None, "unfetched").unwrap();
    bao.enable_jwt(None, "jwt-once", "once").unwrap();
    bao.create_role(
        None,
        "jwt-once",
        "unfetched",
        "bao:unfetched",
        "cmk:unfetched",
        &json!({}),
    )
    .unwrap();
    let mut config = by_role("unfetched", "bao:unfetched");
    config["role_mount"] = json!("jwt-once");
    let settings = json!({ "address": bao.address(), "max_attempts": 1 });
    let key = open_with(minting(bao, "cmk:unfetched"), &settings, &config);
    assert_fails(wrap(&*key), ErrorCode::Unavailable, &["fetching keys"]);
}

#[test]
fn an_approle_logs_in_by_the_secret_id_of_a_file_which_may_be_replaced() {
    let Some(bao) = OpenBao::shared_or_skip("AppRole") else {
        return;
    };
    bao.create_key(None, "approle").unwrap();
    bao.put_policy(None, "approle", &OpenBao::grant("approle"))
        .unwrap();
    let role_id = bao
        .create_app_role("approle", "approle", &json!({ "token_num_uses": 1 }))
        .unwrap();
    let secret_id = bao.secret_id("approle").unwrap();
    let file = Secret::new(&secret_id);
    let settings =
        json!({ "address": bao.address(), "approle_role_id": role_id, "approle_secret_id_file": file.path });
    let key = open(&settings, &json!({ "key": "approle" }));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    file.replace("00000000-0000-0000-0000-000000000000");
    let error = assert_fails(
        unwrap(&*key, &wrapped),
        ErrorCode::Unauthenticated,
        &["AppRole", "secret id"],
    );
    assert!(!error.message.contains(&secret_id), "{error}");
    file.replace(&bao.secret_id("approle").unwrap());
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn a_token_of_a_file_is_used_until_it_is_taken_away_and_its_successor_at_once() {
    let Some(granted) = common::granted("filed", "tokens in files") else {
        return;
    };
    let (bao, key) = (granted.bao, &*granted.key);
    let wrapped = wrap(key).unwrap();
    let first = std::fs::read_to_string(&granted.token.path).unwrap();
    let second = bao.token("filed", "1h").unwrap();
    bao.revoke(first.trim()).unwrap();
    let error = assert_fails(unwrap(key, &wrapped), ErrorCode::Unauthenticated, &["token"]);
    assert!(!error.message.contains(first.trim()), "{error}");
    granted.token.replace(&second);
    assert_eq!(unwrap(key, &wrapped).unwrap(), KEY);
    granted.token.replace("");
    assert_fails(
        unwrap(key, &wrapped),
        ErrorCode::Unavailable,
        &["vault_token_file"],
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tokens last for real time")]
fn a_token_of_a_file_is_renewed_while_it_is_used() {
    let Some(bao) = OpenBao::shared_or_skip("renewals") else {
        return;
    };
    bao.create_key(None, "renewed").unwrap();
    bao.put_policy(None, "renewed", &OpenBao::grant("renewed"))
        .unwrap();
    let periodic = json!({ "policies": ["renewed"], "period": "9s", "no_parent": true });
    // A token that is not used in the last third of its period is not renewed, and is lost: on a machine that stood still for so
    // long another one is tried.
    let unused_max = Duration::from_millis(2500);
    'tokens: for _ in 0..10 {
        let token = Secret::new(&bao.token_of(&periodic).unwrap());
        let key = open(&settings(bao, &token), &json!({ "key": "renewed" }));
        let wrapped = wrap(&*key).unwrap();
        let started = Instant::now();
        let mut used = started;
        while started.elapsed() < Duration::from_secs(20) {
            let opened = unwrap(&*key, &wrapped);
            if used.elapsed() > unused_max {
                continue 'tokens;
            }
            used = Instant::now();
            assert_eq!(opened.unwrap(), KEY, "after {:?}", started.elapsed());
            std::thread::sleep(Duration::from_millis(250));
        }
        return;
    }
    panic!(
        "ten times nothing was done for {unused_max:?}: the machine is too busy for tokens of nine seconds"
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tokens last for real time")]
fn a_role_is_logged_in_to_again_when_its_token_reaches_the_longest_life() {
    let Some(bao) = OpenBao::shared_or_skip("tokens at the end of their life") else {
        return;
    };
    key_with_role(
        bao,
        "ending",
        "jwt-ending",
        &json!({ "token_ttl": "4s", "token_max_ttl": "7s" }),
    );
    let host = minting(bao, "cmk:ending");
    let mut config = by_role("ending", "bao:ending");
    config["role_mount"] = json!("jwt-ending");
    let key = open_with(Arc::clone(&host), &json!({ "address": bao.address() }), &config);
    let wrapped = wrap(&*key).unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(12) {
        assert_eq!(
            unwrap(&*key, &wrapped).unwrap(),
            KEY,
            "after {:?}",
            started.elapsed()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
    let logins = host.asked();
    assert!((2..=6).contains(&logins), "{logins} logins");
}

/// The documentation used to promise this of the role as well.
#[test]
fn a_policy_or_a_method_that_is_taken_away_is_refused_from_the_next_call_on() {
    let Some(bao) = OpenBao::shared_or_skip("policies and methods that are taken away") else {
        return;
    };
    for (name, path, code) in [
        ("unruled", "sys/policies/acl/unruled", ErrorCode::AccessDenied),
        ("shut", "sys/auth/jwt-shut", ErrorCode::Unauthenticated),
    ] {
        let mount = format!("jwt-{name}");
        key_with_role(bao, name, &mount, &json!({}));
        let mut config = by_role(name, &format!("bao:{name}"));
        config["role_mount"] = json!(mount);
        let subject = if name == "shut" { "cmk:shut" } else { "cmk:unruled" };
        let key = open_with(
            minting(bao, subject),
            &json!({ "address": bao.address() }),
            &config,
        );
        let wrapped = wrap(&*key).unwrap();
        bao.call("DELETE", None, path, &Value::Null).unwrap();
        assert_fails(unwrap(&*key, &wrapped), code, &[name]);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tokens last for real time")]
fn a_role_that_is_deleted_is_refused_when_two_thirds_of_its_tokens_life_are_over() {
    let Some(bao) = OpenBao::shared_or_skip("roles that are deleted") else {
        return;
    };
    let life = Duration::from_secs(3);
    key_with_role(bao, "dropped", "jwt-dropped", &json!({ "token_ttl": "3s" }));
    let mut config = by_role("dropped", "bao:dropped");
    config["role_mount"] = json!("jwt-dropped");
    let key = open_with(
        minting(bao, "cmk:dropped"),
        &json!({ "address": bao.address() }),
        &config,
    );
    let started = Instant::now();
    let wrapped = wrap(&*key).unwrap();
    bao.call("DELETE", None, "auth/jwt-dropped/role/dropped", &Value::Null)
        .unwrap();
    let refused = loop {
        match unwrap(&*key, &wrapped) {
            Ok(opened) => assert_eq!(opened, KEY),
            refused => break refused,
        }
        assert!(started.elapsed() < 10 * life, "it is still let in");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_fails(refused, ErrorCode::Unauthenticated, &["role dropped"]);
    assert!(started.elapsed() > life * 2 / 3, "{:?}", started.elapsed());
}

#[test]
fn a_namespace_has_its_own_roles() {
    let Some(bao) = OpenBao::shared_or_skip("roles in namespaces") else {
        return;
    };
    let namespace = Some("customer");
    bao.create_namespace("customer").unwrap();
    bao.enable_transit(namespace).unwrap();
    bao.create_key(namespace, "own").unwrap();
    bao.put_policy(namespace, "own", &OpenBao::grant("own")).unwrap();
    bao.enable_jwt(namespace, "jwt", "keys").unwrap();
    bao.create_role(namespace, "jwt", "own", "bao:own", "cmk:own", &json!({}))
        .unwrap();
    let mut config = by_role("own", "bao:own");
    config["namespace"] = json!("customer");
    let key = open_with(
        minting(bao, "cmk:own"),
        &json!({ "address": bao.address() }),
        &config,
    );
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(wrapped.key_id, "customer/transit/keys/own:1");
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
}

#[test]
fn https_is_spoken_to_a_server_whose_certificate_comes_from_the_ca_file_and_to_no_other() {
    let Some(bao) = OpenBao::shared_or_skip("https to OpenBao") else {
        return;
    };
    let (address, certificate) = bao.https();
    bao.create_key(None, "secure").unwrap();
    let token = Secret::new(bao.root_token());
    let ca = Secret::new(certificate);
    let trusting =
        json!({ "address": address, "vault_token_file": token.path, "ca_file": ca.path, "max_attempts": 1 });
    let key = open(&trusting, &json!({ "key": "secure" }));
    let wrapped = wrap(&*key).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    let mut distrusting = trusting.clone();
    distrusting.as_object_mut().unwrap().remove("ca_file");
    let key = open(&distrusting, &json!({ "key": "secure" }));
    let error = wrap(&*key).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(error.message.contains("certificate"), "{error}");

    for text in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----",
    ] {
        ca.replace(text);
        let key = open(&trusting, &json!({ "key": "secure" }));
        assert_fails(wrap(&*key), ErrorCode::InvalidConfig, &["ca_file"]);
    }
}

#[test]
fn a_server_that_hangs_is_a_timeout_and_one_that_comes_back_is_used_again_and_a_sealed_one_is_an_outage() {
    let Some(bao) = OpenBao::own_or_skip("a server that hangs, and one that is sealed") else {
        return;
    };
    bao.create_key(None, "hanging").unwrap();
    let token = Secret::new(bao.root_token());
    let key = open(&settings(&bao, &token), &json!({ "key": "hanging" }));
    let wrapped = wrap(&*key).unwrap();
    bao.pause().unwrap();
    let brief = Call::with_timeout(Duration::from_millis(400));
    assert_fails(
        key.unwrap(&brief, &context(), &wrapped),
        ErrorCode::Timeout,
        &["transit/keys/hanging"],
    );
    bao.resume().unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    bao.seal().unwrap();
    let error = unwrap(&*key, &wrapped).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(error.message.contains("sealed"), "{error}");
}

/// A server that gives out numbered tokens for `seconds`, and takes those that `accepts` says.
fn logins(seconds: u64, accepts: impl Fn(usize) -> bool + Send + Sync + 'static) -> Server {
    let given = AtomicUsize::new(0);
    Server::start(move |_, request| {
        if request.path.ends_with("/login") {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            return auth(&format!("s.{number}"), seconds, false);
        }
        let number = request.header("x-vault-token").trim_start_matches("s.").parse();
        if number.is_ok_and(&accepts) {
            transit(request)
        } else {
            errors(403, &["permission denied"])
        }
    })
}

#[test]
fn a_token_that_is_no_longer_taken_is_replaced_once_within_the_call() {
    let accepted = Arc::new(AtomicUsize::new(1));
    let theirs = Arc::clone(&accepted);
    let server = logins(3600, move |number| number == theirs.load(Ordering::SeqCst));
    let key = open_with(
        common::host(|_| Some("a.b.c".into())),
        &json!({ "address": server.address(), "max_attempts": 1 }),
        &by_role("acme", "x"),
    );
    wrap(&*key).unwrap();
    accepted.store(2, Ordering::SeqCst);
    wrap(&*key).unwrap();
    accepted.store(99, Ordering::SeqCst);
    assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["transit/keys/acme"]);
    assert_eq!(server.count("/login"), 3, "once at first, once for each renewal");
}

#[test]
fn many_threads_at_once_log_in_once() {
    let server = logins(3600, |_| true);
    let key = open_with(
        common::host(|_| Some("a.b.c".into())),
        &json!({ "address": server.address() }),
        &by_role("acme", "x"),
    );
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| wrap(&*key).unwrap());
        }
    });
    assert_eq!(server.count("/login"), 1);
}

#[test]
fn an_application_that_takes_long_to_mint_holds_up_nobody_beyond_the_deadline() {
    let server = logins(3600, |_| true);
    let host = common::host(|_| {
        std::thread::sleep(Duration::from_secs(3));
        Some("a.b.c".into())
    });
    let key = open_with(
        host,
        &json!({ "address": server.address() }),
        &by_role("acme", "x"),
    );
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let brief = Call::with_timeout(Duration::from_millis(300));
                assert_fails(key.wrap(&brief, &context(), &KEY), ErrorCode::Timeout, &[]);
            });
        }
    });
    // Whoever waited for the login has left its thread: there is room for the next ones.
    key.wrap(&call(), &context(), &KEY).unwrap();
}

#[test]
fn an_application_that_mints_no_tokens_is_told_so() {
    let server = logins(3600, |_| true);
    let key = open(
        &json!({ "address": server.address() }),
        &by_role("acme", "bao:acme"),
    );
    assert_fails(
        wrap(&*key),
        ErrorCode::InvalidConfig,
        &["bao:acme", "identity token", "no issuer"],
    );
    assert!(server.requests().is_empty());
}

#[test]
fn a_token_never_gets_into_an_error_even_if_the_server_repeats_it() {
    let token = "eyJhbGciOiJub25l.eyJzdWIiOiJhY21l.c2lnbmF0dXJl";
    let server = Server::start(move |_, _| errors(400, &[token]));
    let key = open_with(
        common::host(move |_| Some(token.into())),
        &json!({ "address": server.address(), "max_attempts": 1 }),
        &by_role("acme", "x"),
    );
    let error = assert_fails(wrap(&*key), ErrorCode::Unauthenticated, &["token"]);
    for part in token.split('.') {
        assert!(!error.message.contains(part), "{error}");
    }
}

#[test]
fn while_the_server_is_ill_a_worn_token_is_used_to_its_end() {
    // Whether a token that was worn when it was needed was still good then is a matter of seconds, which a busy machine may take.
    assert!(
        (0..3).any(|_| a_worn_token_is_used()),
        "its end came before its use"
    );
}

/// False when the token's end came before it could be used: then nothing was seen.
#[allow(clippy::disallowed_methods, reason = "tokens last for real time")]
fn a_worn_token_is_used() -> bool {
    let life = Duration::from_secs(12);
    let ill = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ill);
    let server = Server::start(move |_, request| {
        if request.path.ends_with("/login") {
            if theirs.load(Ordering::SeqCst) == 1 {
                return errors(500, &["internal error"]);
            }
            return auth("s.1", life.as_secs(), false);
        }
        transit(request)
    });
    let key = open_with(
        common::host(|_| Some("a.b.c".into())),
        &json!({ "address": server.address(), "max_attempts": 1 }),
        &by_role("acme", "x"),
    );
    let began = Instant::now();
    wrap(&*key).unwrap();
    ill.store(1, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(8500));
    match wrap(&*key) {
        Err(_) if began.elapsed() >= life => return false,
        used => drop(used.unwrap()),
    }
    assert_eq!(
        server.count("/login"),
        2,
        "a new one was asked for, and not given"
    );
    std::thread::sleep(Duration::from_millis(4000));
    assert_fails(wrap(&*key), ErrorCode::Unavailable, &["logging in"]);
    true
}
