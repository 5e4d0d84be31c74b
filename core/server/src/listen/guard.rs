//! Browsers are not clients: a page must not reach an API on this machine, by its own name or by another's.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::net::IpAddr;

/// What a request may say about where it comes from and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origins {
    /// Nothing from web pages. The Host header is the client's business: the transport vouches for the peer.
    NoPages,
    /// Also, Host must be an address or `localhost`: a name of a stranger's domain may have been pointed here
    /// (DNS rebinding).
    NoPagesOnLoopback,
    /// The API behind it judges by itself, as one with WebSockets has to: some of their clients name an origin.
    JudgedByApi,
}

impl Origins {
    /// A refusal, in words that both Docker's and other clients can show.
    pub(super) fn check(self, headers: &HeaderMap) -> Option<Response> {
        if self == Origins::JudgedByApi {
            return None;
        }
        if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
            return Some(refuse("requests of web pages are refused"));
        }
        match self {
            Origins::NoPages | Origins::JudgedByApi => None,
            Origins::NoPagesOnLoopback => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
                if is_local(host) {
                    None
                } else {
                    Some(refuse("the Host header names another machine than this one"))
                }
            }
        }
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refuse(message: &str) -> Response {
    (StatusCode::FORBIDDEN, axum::Json(serde_json::json!({ "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn passes(origins: Origins, name: &'static str, value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        origins.check(&headers).is_none()
    }

    #[test]
    fn pages_are_refused_everywhere() {
        assert!(!passes(Origins::NoPages, "origin", "http://evil.example"));
        assert!(!passes(Origins::NoPages, "sec-fetch-site", "cross-site"));
        assert!(passes(Origins::NoPages, "host", "anything"));
        assert!(passes(Origins::JudgedByApi, "origin", "http://localhost"));
    }

    #[test]
    fn on_loopback_the_host_must_be_this_machine() {
        for host in ["localhost:2375", "127.0.0.1", "127.8.8.8:1", "[::1]:2375"] {
            assert!(passes(Origins::NoPagesOnLoopback, "host", host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:2375", "192.0.2.1", ""] {
            assert!(!passes(Origins::NoPagesOnLoopback, "host", host), "{host}");
        }
    }
}
