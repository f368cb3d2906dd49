//! The HTTP clients that the SDK is given: rustls with ring, the system's certificates, no redirects, deadlines.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use keystead_backend::{BackendError, ErrorCode};
use keystead_backend_common::words;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::json;

use crate::settings::{SETTINGS, Settings};

/// Whom a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Towards {
    /// Vaults: at the settings' address, if they name one.
    Vaults,
    /// Entra ID.
    SignIn,
    /// The platform's own service of managed identities, which is on this machine or its host: never through a proxy.
    Platform,
}

/// A client with these settings. Reads the certificates that are trusted.
///
/// # Errors
///
/// [`ErrorCode::InvalidConfig`] when the settings' file of certificates cannot be used.
pub(crate) fn client(settings: &Settings, towards: Towards) -> Result<Arc<dyn HttpClient>, BackendError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings)?)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.attempt_timeout);
    match (towards, settings.vault_address) {
        (Towards::Vaults, Some(address)) => builder = builder.no_proxy().dns_resolver(Fixed(address)),
        (Towards::Platform, _) => builder = builder.no_proxy(),
        _ => {}
    }
    let client = builder.build().map_err(|error| {
        BackendError::new(
            ErrorCode::Internal,
            format!("setting up the HTTP client: {error}; please report this"),
        )
    })?;
    Ok(match towards {
        Towards::SignIn => Arc::new(SignIn(client)),
        _ => Arc::new(client),
    })
}

fn tls(settings: &Settings) -> Result<ClientConfig, BackendError> {
    let mut trusted = RootCertStore::empty();
    // What is not a certificate in the system's store is left out: others may be there.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.ca_file {
        let wrong =
            |what: String| SETTINGS.wrong_field("ca_file", format!("names {}: {what}", path.display()));
        let mut any = false;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            trusted
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
            any = true;
        }
        if !any {
            return Err(wrong("there is no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            BackendError::new(
                ErrorCode::Internal,
                format!("setting up TLS: {error}; please report this"),
            )
        })?;
    Ok(config.with_root_certificates(trusted).with_no_client_auth())
}

/// Every name is at one address. TLS still asks the server there for a certificate of the name.
struct Fixed(SocketAddr);

impl Resolve for Fixed {
    fn resolve(&self, _name: Name) -> Resolving {
        let address: Addrs = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(address)))
    }
}

/// Makes the refusals of Entra ID readable for the SDK, which takes a refusal whose text has an escaped character, as all
/// of them have (`\r\n`), for an answer that is no JSON, and so loses the error's number and the status.
#[derive(Debug)]
struct SignIn(reqwest::Client);

#[async_trait]
impl HttpClient for SignIn {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.0.execute_request(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (status, headers, body) = answer.deconstruct();
        let body = readable(&body.collect().await?);
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    error_codes: Vec<i32>,
    error_description: String,
}

/// The refusal with the first line of its text alone, without anything in it that JSON would escape.
fn readable(body: &[u8]) -> Vec<u8> {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let text = words(&refusal.error_description).replace(['"', '\\'], "'");
    json!({ "error_codes": refusal.error_codes, "error_description": text })
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_refusal_keeps_its_numbers_and_its_first_line_and_has_nothing_escaped() {
        let body = json!({
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client \"secret\".\r\nTrace ID: 1\r\n",
            "error_codes": [7000215],
        });
        let readable = readable(body.to_string().as_bytes());
        let text = String::from_utf8(readable).unwrap();
        assert!(!text.contains('\\'), "{text}");
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["error_codes"], json!([7000215]));
        assert_eq!(
            parsed["error_description"],
            "AADSTS7000215: Invalid client 'secret'."
        );
    }

    #[test]
    fn what_is_no_refusal_becomes_an_empty_one() {
        for body in [&b"<html>"[..], b"", b"[]", b"{\"error_codes\": \"x\"}"] {
            let parsed: Value = serde_json::from_slice(&readable(body)).unwrap();
            assert_eq!(parsed, json!({ "error_codes": [], "error_description": "" }));
        }
    }
}
