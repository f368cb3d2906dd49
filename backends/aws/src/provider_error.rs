//! Why the standard credential chain gave no credentials.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::{Confided, words};

use crate::failure::Doing;

/// Explains it.
///
/// Only what STS refused in so many words is a refusal. That nothing was found, or that the metadata service did not
/// answer, says nothing about the owner's will: it is an outage, and what is cached may be served.
pub(crate) fn explain(doing: Doing<'_>, error: &CredentialsError) -> BackendError {
    if let Some(refused) = refused_by_sts(doing, error) {
        return refused;
    }
    match error {
        CredentialsError::CredentialsNotLoaded(_) => BackendError::new(
            ErrorCode::Unavailable,
            format!(
                "{}: none found; give the application AWS credentials (environment, AWS profile, web identity, container or instance role), or access_key_id and secret_access_key in the backend's settings",
                doing.what()
            ),
        ),
        CredentialsError::ProviderTimedOut(_) => doing.failed(
            ErrorCode::Timeout,
            "the credential provider gave no answer in time",
        ),
        CredentialsError::InvalidConfiguration(_) => BackendError::new(
            ErrorCode::InvalidConfig,
            format!(
                "{}: the AWS configuration of the environment is wrong ({}); correct the AWS profile or environment variables",
                doing.what(),
                innermost(error)
            ),
        ),
        _ => doing.failed(
            ErrorCode::Unavailable,
            format!("the credential provider failed ({})", innermost(error)),
        ),
    }
}

/// The same error without what the chain shows to whoever gives out credentials, should that have repeated it. The SDK tells nobody what
/// it sent, so it is looked for where the SDK looks. (Identity tokens are left out of all words.)
pub(crate) fn without_what_was_shown(error: BackendError, doing: Doing<'_>) -> BackendError {
    let shown = Confided::default();
    for (name, what) in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the container's token"),
        ("AWS_SESSION_TOKEN", "the session token"),
    ] {
        if let Some(secret) = std::env::var_os(name) {
            shown.note(what, secret.as_encoded_bytes());
        }
    }
    shown.without(error, &doing.what())
}

/// The chain may assume a role itself; the refusal then lies somewhere under its error.
fn refused_by_sts(doing: Doing<'_>, error: &CredentialsError) -> Option<BackendError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(refusal) = cause.downcast_ref::<SdkError<AssumeRoleError>>() {
            return Some(doing.sdk_failed(refusal));
        }
        if let Some(refusal) = cause.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError>>() {
            return Some(doing.sdk_failed(refusal));
        }
        if let Some(refusal) = cause.downcast_ref::<AssumeRoleError>() {
            return Some(doing.refused(refusal.code(), refusal.message().unwrap_or_default(), None));
        }
        if let Some(refusal) = cause.downcast_ref::<AssumeRoleWithWebIdentityError>() {
            return Some(doing.refused(refusal.code(), refusal.message().unwrap_or_default(), None));
        }
        next = cause.source();
    }
    None
}

/// The innermost cause says the most; providers name files and variables there, not their contents.
fn innermost(error: &CredentialsError) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    words(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOING: Doing<'_> = Doing::Credentials {
        key: "arn:aws:kms:eu-west-1:111122223333:key/1",
    };

    #[test]
    fn finding_no_credentials_is_an_outage_and_says_where_they_are_looked_for() {
        let error = explain(DOING, &CredentialsError::not_loaded("nothing"));
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(
            error.message.contains("environment") && error.message.contains("access_key_id"),
            "{error}"
        );
    }

    #[test]
    fn what_sts_refuses_under_the_chain_is_a_refusal() {
        let refusal = |code: &str| {
            let meta = aws_sdk_sts::error::ErrorMetadata::builder()
                .code(code)
                .message("no")
                .build();
            CredentialsError::provider_error(AssumeRoleWithWebIdentityError::generic(meta))
        };
        assert_eq!(
            explain(DOING, &refusal("AccessDenied")).code,
            ErrorCode::AccessDenied
        );
        assert_eq!(
            explain(DOING, &refusal("InvalidIdentityToken")).code,
            ErrorCode::Unauthenticated
        );
    }

    #[test]
    fn the_other_failures_of_the_chain_keep_their_kind() {
        let timed_out = CredentialsError::provider_timed_out(std::time::Duration::from_secs(1));
        assert_eq!(explain(DOING, &timed_out).code, ErrorCode::Timeout);
        assert_eq!(
            explain(DOING, &CredentialsError::invalid_configuration("p")).code,
            ErrorCode::InvalidConfig
        );
        assert_eq!(
            explain(DOING, &CredentialsError::provider_error("503")).code,
            ErrorCode::Unavailable
        );
    }
}
