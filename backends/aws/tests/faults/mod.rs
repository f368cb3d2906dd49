//! Through microburst, a proxy that makes the faults of a real network and of a busy AWS in AWS's own form: throttling, errors
//! by AWS's own model of KMS, resets, delays, answers that are cut or lost. Behind it, moto.
//!
//! One proxy and emulator serve each test, since starting them costs more than all that is asked of them.

use std::time::{Duration, Instant};

use crate::common::{KEY, assert_fails, call, context, open, unwrap, wrap};
use keystead_backend::{Call, ErrorCode, KeyInstance, Wrapped};
use keystead_tests::emulators::{Emulator, Kind, Microburst};
use serde_json::{Value, json};

struct Behind {
    aws: &'static Emulator,
    proxy: Microburst,
    arn: String,
}

impl Behind {
    fn start(left_out: &str) -> Option<Self> {
        let aws = Emulator::shared_or_skip(Kind::Moto, left_out)?;
        Some(Self {
            aws,
            proxy: Microburst::before(aws),
            arn: aws.account().create_key().unwrap(),
        })
    }

    /// The key as an application with these settings has it, and a wrap from a time without faults.
    fn key(&self, settings: &Value) -> (Box<dyn KeyInstance>, Wrapped) {
        self.proxy.rules(&json!([])).unwrap();
        let mut all = self.proxy.settings(self.aws);
        for (field, value) in settings.as_object().unwrap() {
            all[field] = value.clone();
        }
        let key = open(&all, &json!({ "key_arn": self.arn }));
        let wrapped = wrap(&*key).unwrap();
        (key, wrapped)
    }

    /// Has KMS's calls fail so from now on.
    fn fault(&self, fault: &Value) {
        let mut rule = fault.clone();
        rule["service"] = json!("kms");
        self.proxy.rules(&json!([rule])).unwrap();
    }

    fn fired(&self) -> Vec<String> {
        self.proxy.fired().unwrap()
    }
}

#[test]
fn a_burst_of_throttling_is_waited_out_and_throttling_that_goes_on_is_told_as_that() {
    let Some(behind) = Behind::start("bursts of throttling") else {
        return;
    };
    let (key, wrapped) = behind.key(&json!({ "max_attempts": 4 }));
    let burst = |operation: &str| {
        let error = json!({ "code": "ThrottlingException", "message": "Rate exceeded" });
        behind.fault(&json!({ "operation": operation, "times": 3, "error": error }));
    };
    burst("Decrypt");
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);
    assert_eq!(behind.fired(), ["error:ThrottlingException"; 3]);
    burst("Encrypt");
    let during = wrap(&*key).unwrap();
    assert_eq!(behind.fired(), ["error:ThrottlingException"; 3]);
    assert_eq!(unwrap(&*key, &during).unwrap(), KEY);

    let (key, wrapped) = behind.key(&json!({ "max_attempts": 2 }));
    behind.fault(&json!({ "error": { "code": "ThrottlingException" } }));
    assert_fails(unwrap(&*key, &wrapped), ErrorCode::Throttled, &[&behind.arn]);
    assert_eq!(behind.fired().len(), 2, "attempts");
    behind.proxy.rules(&json!([])).unwrap();
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    every_error_of_the_model_is_told_by_its_class(&behind);
}

/// In the form that AWS's own model of KMS gives each, which differs: some are shapes of the model, others come from the layer
/// before every service.
fn every_error_of_the_model_is_told_by_its_class(behind: &Behind) {
    let (key, wrapped) = behind.key(&json!({ "max_attempts": 1 }));
    for (code, meaning) in [
        ("KMSInternalException", ErrorCode::Unavailable),
        ("DependencyTimeoutException", ErrorCode::Unavailable),
        ("KeyUnavailableException", ErrorCode::Unavailable),
        ("DisabledException", ErrorCode::KeyDisabled),
        ("KMSInvalidStateException", ErrorCode::KeyDisabled),
        ("NotFoundException", ErrorCode::KeyNotFound),
        ("InvalidCiphertextException", ErrorCode::InvalidCiphertext),
        ("IncorrectKeyException", ErrorCode::WrongKey),
        ("InvalidKeyUsageException", ErrorCode::InvalidConfig),
        ("InvalidGrantTokenException", ErrorCode::InvalidConfig),
        ("AccessDeniedException", ErrorCode::AccessDenied),
        ("ExpiredTokenException", ErrorCode::Unauthenticated),
        ("UnrecognizedClientException", ErrorCode::Unauthenticated),
        ("ServiceUnavailable", ErrorCode::Unavailable),
    ] {
        behind.fault(&json!({ "error": { "code": code } }));
        assert_fails(unwrap(&*key, &wrapped), meaning, &[&behind.arn, code]);
    }
}

#[test]
fn resets_and_lost_answers_are_asked_for_again_and_if_they_go_on_are_an_outage_and_never_a_refusal() {
    let Some(behind) = Behind::start("resets and lost answers") else {
        return;
    };
    let faults = [
        ("reset before KMS is asked", json!({ "reset": true })),
        (
            "KMS has done it, and its answer is lost",
            json!({ "response": { "abort_bytes": 0 } }),
        ),
        (
            "KMS has done it, and its answer is cut off",
            json!({ "response": { "abort_bytes": 20 } }),
        ),
    ];
    let (key, _) = behind.key(&json!({ "max_attempts": 3 }));
    for (what, fault) in &faults {
        for operation in ["Encrypt", "Decrypt"] {
            let mut twice = fault.clone();
            twice["operation"] = json!(operation);
            twice["times"] = json!(2);
            behind.fault(&twice);
            let wrapped = wrap(&*key).unwrap_or_else(|error| panic!("{what}: {error}"));
            let opened = unwrap(&*key, &wrapped).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(opened, KEY, "{what}");
            assert_eq!(behind.fired().len(), 2, "{what}, {operation}");
        }
    }

    let (key, wrapped) = behind.key(&json!({ "max_attempts": 1 }));
    let more = [
        (
            "500",
            json!({ "error": { "code": "InternalFailure", "status": 500 } }),
        ),
        (
            "an answer that says less than it should",
            json!({ "response": { "truncate_frac": 0.7 } }),
        ),
    ];
    for (what, fault) in faults.iter().chain(&more) {
        behind.fault(fault);
        for outcome in [
            wrap(&*key).map(drop).unwrap_err(),
            unwrap(&*key, &wrapped).map(drop).unwrap_err(),
        ] {
            assert_eq!(outcome.code, ErrorCode::Unavailable, "{what}: {outcome}");
        }
    }
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "how long a call takes is what is measured"
)]
fn a_slow_answer_is_given_up_for_another_attempt_and_a_slow_kms_ends_at_the_deadline() {
    let Some(behind) = Behind::start("a slow KMS") else {
        return;
    };
    // One hangs; the others are for a busy machine.
    let (key, wrapped) = behind.key(&json!({ "max_attempts": 4, "attempt_timeout_ms": 1500 }));
    behind.fault(&json!({ "times": 1, "latency": 20_000 }));
    assert_eq!(unwrap(&*key, &wrapped).unwrap(), KEY);

    behind.fault(&json!({ "latency": 20_000 }));
    let started = Instant::now();
    let brief = Call::with_timeout(Duration::from_millis(300));
    let outcome = key.unwrap(&brief, &context(), &wrapped);
    assert_fails(outcome, ErrorCode::Timeout, &[&behind.arn]);
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    let outcome = key.unwrap(&call(), &context(), &wrapped);
    assert_fails(outcome, ErrorCode::Timeout, &[&behind.arn]);
}
