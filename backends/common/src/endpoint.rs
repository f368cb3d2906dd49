//! A URL that key material may be sent to.

use keystead_backend::BackendError;
use serde_json::Value;

use crate::strict::Object;

impl Object {
    /// The URL of a service: `https`, or plain `http` on loopback, without credentials in it.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](keystead_backend::ErrorCode::InvalidConfig) names the field and says what is wrong with the URL.
    pub fn endpoint(self, field: &str, value: Option<Value>) -> Result<Option<String>, BackendError> {
        let Some(url) = self.text(field, value, 2048)? else {
            return Ok(None);
        };
        let (encrypted, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(self.wrong_field(field, "must begin with https:// (or http:// on loopback)")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') || rest.contains(char::is_whitespace) {
            return Err(self.wrong_field(field, "is not a URL of a host: write https://host[:port]"));
        }
        if !encrypted && !is_loopback(authority) {
            return Err(self.wrong_field(
                field,
                "is plain http to another machine: key material would cross the network in clear; use https://",
            ));
        }
        Ok(Some(url))
    }
}

fn is_loopback(authority: &str) -> bool {
    if let Ok(address) = authority.parse::<std::net::SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':') => host,
        _ => authority,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_material_crosses_no_network_in_clear() {
        let endpoint = |url: &str| Object::Settings("a-kms").endpoint("endpoint_url", Some(json!(url)));
        for url in [
            "https://kms.example:8443/path",
            "http://127.0.0.1:8200",
            "http://[::1]:8200",
            "http://localhost",
        ] {
            assert_eq!(endpoint(url).unwrap().as_deref(), Some(url));
        }
        for url in [
            "http://kms.example",
            "http://127.0.0.1.example:80",
            "http://localhost@example",
            "https://user:password@kms.example",
            "https://",
            "kms.example",
            "file:///etc/passwd",
        ] {
            assert!(endpoint(url).is_err(), "{url} passed");
        }
    }
}
