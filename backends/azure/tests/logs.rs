//! What the SDK and what lies under it write to the log, at its loudest, holds no secret.

mod common;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::{KEY, Owned, TestHost, open_with, unwrap, wrap};
use keystead_tests::emulators::{Azure, TENANT};
use keystead_tests::logs::Log;
use serde_json::json;

const ISSUER: &str = "https://tokens.saas.example";
const AUDIENCE: &str = "api://AzureADTokenExchange";

#[test]
fn the_loudest_log_has_no_key_no_token_and_no_client_secret() {
    let Some(azure) = Azure::own_or_skip("secrets in the log of the Azure SDK") else {
        return;
    };
    let log = Log::of_the_process();
    let owned = Owned::new(&azure, "logs.vault.azure.net");
    let by_secret = owned.open();
    let wrapped = wrap(&*by_secret).unwrap();
    assert_eq!(unwrap(&*by_secret, &wrapped).unwrap(), KEY);
    azure
        .federate(&owned.application, ISSUER, "pod", AUDIENCE)
        .unwrap();
    let token = azure.mint(ISSUER, "pod", AUDIENCE, 600).unwrap();
    let config = json!({
        "key_id": owned.key, "tenant_id": TENANT, "client_id": owned.application.client_id,
        "workload_identity": { "audience": AUDIENCE },
    });
    let by_token = open_with(TestHost::minting(token.clone()), &azure.settings(), &config);
    assert_eq!(unwrap(&*by_token, &wrapped).unwrap(), KEY);
    azure.set_enabled(&owned.key, None, false).unwrap();
    unwrap(&*by_token, &wrapped).unwrap_err();

    let log = log.text();
    assert!(
        log.contains("logs.vault.azure.net") && log.contains("unwrapkey"),
        "the SDK logs too little to be looked through: {} bytes",
        log.len()
    );
    // Access tokens are not known here, but they begin as every token does, and are sent as bearers.
    let access_token = URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\"");
    let secrets = [
        std::str::from_utf8(&KEY).unwrap().to_owned(),
        STANDARD.encode(KEY),
        URL_SAFE_NO_PAD.encode(KEY),
        owned.application.secret.clone(),
        owned.application.secret.replace('~', "%7E"),
        token.rsplit('.').next().unwrap().to_owned(),
        access_token[..access_token.len() - 2].to_owned(),
    ];
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log:\n{log}");
    }
}
